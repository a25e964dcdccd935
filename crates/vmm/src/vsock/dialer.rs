//! A process that connects to the host's ports.
//!
//! A filter cannot tell one socket's name from another, so a process that may connect may connect to any
//! socket of the host. The machine's process may to none: it says the number of a port, and is handed a
//! connection to the socket of that port.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    recvmsg, send, sendmsg, socket_with,
};

use crate::{sandbox, side_process};

/// What the process may ask of the host, beyond what every thread may.
const CALLS: &[libc::c_long] =
    &[libc::SYS_recvfrom, libc::SYS_socket, libc::SYS_connect, libc::SYS_sendmsg];

/// Answers: a connection comes with it, or the error's number.
const CONNECTED: i32 = 0;

/// The way to the process.
#[derive(Debug)]
pub struct Dialer(Mutex<OwnedFd>);

impl Dialer {
    /// Starts the process, for the ports whose sockets are `path` and their numbers.
    ///
    /// # Errors
    ///
    /// The host gives no sockets or no process.
    ///
    /// # Safety
    ///
    /// The process has one thread, as for [`crate::daemon::detach`].
    #[expect(unsafe_code, reason = "hands the promise of one thread on")]
    pub unsafe fn start(path: &Path, confined: bool) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let serve = |socket: &OwnedFd| {
            if confined {
                sandbox::confine_process(CALLS).map_err(io::Error::other)?;
            }
            serve(&path, socket)
        };
        // SAFETY: the caller says that there is one thread.
        let socket =
            unsafe { side_process::start(c"cloister-dialer", SocketType::SEQPACKET, &[], serve) }?;
        Ok(Self(Mutex::new(socket)))
    }

    /// A connection to a port of the host.
    ///
    /// # Errors
    ///
    /// Nobody listens there, or the process is gone.
    pub(super) fn connect(&self, port: u32) -> io::Result<OwnedFd> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(&*socket, &port.to_ne_bytes(), SendFlags::NOSIGNAL)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut answer = [0; 4];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&*socket, &mut [IoSliceMut::new(&mut answer)], &mut control, flags)?;
        if message.bytes != answer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let connection = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        connection.ok_or_else(|| io::Error::from_raw_os_error(i32::from_ne_bytes(answer)))
    }
}

/// The life of the process: it answers as long as somebody asks.
fn serve(path: &Path, socket: &OwnedFd) -> io::Result<()> {
    loop {
        let mut port = [0; 4];
        match recv(socket, &mut port[..], RecvFlags::empty()) {
            Ok((4, _)) => {}
            Err(Errno::INTR) => continue,
            _ => return Ok(()),
        }
        let connection = dial(&name(path, u32::from_ne_bytes(port)));
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = connection.as_ref().map(|connection| [connection.as_fd()]);
        let answer = match &files {
            Ok(files) => {
                control.push(SendAncillaryMessage::ScmRights(files));
                CONNECTED
            }
            Err(error) => error.raw_os_error(),
        };
        let answer = answer.to_ne_bytes();
        sendmsg(socket, &[IoSlice::new(&answer)], &mut control, SendFlags::NOSIGNAL)?;
    }
}

/// The socket of a port.
fn name(path: &Path, port: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!("_{port}"));
    name.into()
}

/// Connects without waiting: a listener that does not take its clients has none of the guest.
fn dial(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use rustix::net::socketpair;

    use super::*;

    #[test]
    fn a_port_that_is_listened_at_is_connected_and_another_refused() {
        let base = std::env::temp_dir().join(format!("cloister-dialer-{}", std::process::id()));
        let listener = UnixListener::bind(name(&base, 52)).unwrap();
        let (own, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let served = base.clone();
        let server = thread::spawn(move || serve(&served, &other));
        let dialer = Dialer(Mutex::new(own));

        let refused = dialer.connect(53).unwrap_err();
        let mut connection = UnixStream::from(dialer.connect(52).unwrap());
        connection.write_all(b"hello").unwrap();
        drop(connection);
        let mut heard = String::new();
        listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();

        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        assert_eq!(heard, "hello");
        drop(dialer);
        server.join().unwrap().unwrap();
        std::fs::remove_file(name(&base, 52)).unwrap();
    }
}
