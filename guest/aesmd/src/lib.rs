//! The socket of Intel's AESM service in a machine, at which programs ask for quotes. The host answers: requests go
//! there and responses come back as they are, each with its length before it in 4 bytes, little-endian.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The host's port where `cloister aesm` or the machine of `cloister exec` answers.
pub const PORT: u32 = 1028;
/// Where clients look for the socket.
const FOLDER: &str = "/var/run/aesmd";
const SOCKET: &str = "/var/run/aesmd/aesm.socket";
/// Bytes of a message at most, beyond which the host ends the connection.
const MAX_MESSAGE: usize = 64 << 10;
/// How long to wait for descriptors or memory that a client cannot have now.
const RETRY: Duration = Duration::from_millis(100);

/// Makes the socket, which every user may connect to.
///
/// # Errors
/// The kernel's own.
pub fn listen() -> io::Result<UnixListener> {
    fs::create_dir_all(FOLDER)?;
    match fs::symlink_metadata(SOCKET) {
        // That of a service before this one, or the host's, where its /var/run is a folder.
        Ok(there) if there.file_type().is_socket() => {
            if UnixStream::connect(SOCKET).is_ok() {
                return Err(io::Error::other("a running service has it: end that service first"));
            }
            fs::remove_file(SOCKET)?;
        }
        Ok(_) => return Err(io::Error::other("it is there and no socket: remove it")),
        // Whatever else is wrong with the path, bind says.
        Err(_) => {}
    }
    let listener = UnixListener::bind(SOCKET)?;
    fs::set_permissions(SOCKET, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Has every client of the socket answered, each on a thread of its own.
pub fn serve(
    listener: &UnixListener,
    answer: impl Fn(UnixStream) -> io::Result<()> + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    for client in listener.incoming() {
        let answer = answer.clone();
        let served = client.and_then(|client| {
            // A client that goes away does not concern the others.
            thread::Builder::new().spawn(move || drop(answer(client)))
        });
        if served.is_err() {
            thread::sleep(RETRY);
        }
    }
}

/// Passes a client's requests to `ask`, and what it returns back, until the client has no more.
///
/// # Errors
/// Those of the client's socket and of `ask`.
pub fn relay(
    mut client: UnixStream,
    mut ask: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let request = read_message(&mut client)?;
        client.write_all(&ask(&request)?)?;
    }
}

/// Sends the host a request and returns its response.
///
/// # Errors
/// Those of the stream.
pub fn ask(host: &mut (impl Read + Write), request: &[u8]) -> io::Result<Vec<u8>> {
    host.write_all(request)?;
    read_message(host)
}

/// A message with its length before it.
fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > MAX_MESSAGE {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; head.len() + length];
    message[..4].copy_from_slice(&head);
    from.read_exact(&mut message[4..])?;
    Ok(message)
}
