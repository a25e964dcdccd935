//! The process that quotes for a machine.
//!
//! It has the keys that certify, and neither the guest's memory nor the machine's files. A guest's requests come
//! to it by a stream: 4 bytes of length, little-endian, and a message to Intel's AESM service, each of which is
//! answered in the same form.

use std::io;
use std::os::fd::OwnedFd;

use cloister_attest::aesm::{Aesm, MAX_MESSAGE};
use cloister_attest::quote::Quoter;
use libc::c_long;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send};

use super::certified::Open;
use super::{AttestationError, Certified};
use crate::{platform_dir, sandbox, side_process};

/// What the process asks of the host, beyond what every thread may.
const CALLS: &[c_long] = &[libc::SYS_recvfrom, libc::SYS_sendto];
/// Bytes of a message's length.
const LENGTH: usize = 4;

/// Why there is no process that quotes.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The host gives no process, or none that is confined.
    #[error("the host gives no process that quotes: {0}")]
    Host(io::Error),
    /// The platform cannot be certified.
    #[error("{0}")]
    Certified(String),
}

/// Starts the process and returns the machine's end of the stream.
///
/// # Errors
///
/// [`ServiceError`].
///
/// # Safety
///
/// The process has one thread, as for [`crate::daemon::detach`].
#[expect(unsafe_code, reason = "hands the promise of one thread on")]
pub(crate) unsafe fn start_service(
    certified: &Certified,
    confined: bool,
) -> Result<OwnedFd, ServiceError> {
    // The process leaves the folder that names begin at.
    let certified = certified.absolute().map_err(ServiceError::Host)?;
    let serve = |socket: &OwnedFd| match open(&certified, platform_dir::open) {
        Ok(aesm) => {
            if confined {
                sandbox::confine_to_folders([].into_iter())?;
                sandbox::confine_process(CALLS).map_err(io::Error::other)?;
            }
            put_message(socket, b"")?;
            serve(&aesm, socket)
        }
        Err(error) => Ok(put_message(socket, error.to_string().as_bytes())?),
    };
    // SAFETY: the caller says that there is one thread.
    let socket = unsafe { side_process::start(c"cloister-quotes", SocketType::STREAM, &[], serve) };
    let socket = socket.map_err(ServiceError::Host)?;
    // What is wrong, or nothing.
    match get_message(&socket).map_err(|error| ServiceError::Host(error.into()))? {
        Some(wrong) if wrong.is_empty() => Ok(socket),
        Some(wrong) => Err(ServiceError::Certified(String::from_utf8_lossy(&wrong).into_owned())),
        None => Err(ServiceError::Host(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// The service of a platform, which `open` opens.
pub(super) fn open(certified: &Certified, open: Open) -> Result<Aesm, AttestationError> {
    let (platform, authority) = certified.open(open)?;
    Ok(Aesm::new(Quoter::new(&platform, &authority)?))
}

/// Answers as long as somebody asks: the life of the process, or a client's.
pub(super) fn serve(aesm: &Aesm, socket: &OwnedFd) -> io::Result<()> {
    while let Some(request) = get_message(socket)? {
        put_message(socket, &aesm.answer(&request))?;
    }
    Ok(())
}

/// The next message; none at the end of the stream, or where one is too long to be a request.
fn get_message(socket: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    let mut length = [0; LENGTH];
    if !fill(socket, &mut length)? {
        return Ok(None);
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Ok(None);
    }
    let mut message = vec![0; length];
    Ok(fill(socket, &mut message)?.then_some(message))
}

/// Reads so many bytes, if they come.
fn fill(socket: &OwnedFd, mut bytes: &mut [u8]) -> Result<bool, Errno> {
    while !bytes.is_empty() {
        match recv(socket, &mut *bytes, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(false),
            Ok((count, _)) => bytes = &mut bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn put_message(socket: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    let length = u32::try_from(message.len()).map_err(|_| Errno::MSGSIZE)?;
    let all = [&length.to_le_bytes(), message].concat();
    let mut left = &all[..];
    while !left.is_empty() {
        match send(socket, left, SendFlags::NOSIGNAL) {
            Ok(count) => left = &left[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use cloister_attest::pki::{Authority, Names};
    use cloister_sgx::PlatformFuses;

    use super::*;

    /// Serves what is written, and returns what comes back until the service ends.
    fn answers(written: &[u8]) -> Vec<u8> {
        let platform = PlatformFuses::draw().unwrap();
        let authority = Authority::of_platform(&platform, Names::Cloister).unwrap();
        let aesm = Aesm::new(Quoter::new(&platform, &authority).unwrap());
        let (mut client, server) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(&aesm, &server.into()).unwrap());
        client.write_all(written).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).unwrap();
        server.join().unwrap();
        answers
    }

    /// GetSupportedAttKeyIDNum: field 22 for requests, and one key.
    const REQUEST: &[u8] = b"\x03\0\0\0\xaa\x01\0";
    const RESPONSE: &[u8] = b"\x07\0\0\0\xaa\x01\x04\x08\0\x10\x01";

    #[test]
    fn requests_of_one_connection_are_answered_in_their_order() {
        let twice = [REQUEST, b"\0\0\0\0", REQUEST].concat();

        let unsupported = b"\x05\0\0\0\xa2\x01\x02\x08\x1e";
        assert_eq!(answers(&twice), [RESPONSE, unsupported, RESPONSE].concat());
    }

    #[test]
    fn a_message_that_is_too_long_or_cut_short_ends_the_connection() {
        for rest in [&b"\x01\0\x01\0"[..], b"\xff\xff\xff\xff", b"\x03\0\0\0\xaa\x01", b"\x03\0"] {
            assert_eq!(answers(&[REQUEST, rest].concat()), RESPONSE);
        }
    }
}
