//! The socket of Intel's AESM service, at which programs ask for quotes. The host answers: requests go there and
//! responses come back as they are, each with its length before it in 4 bytes, little-endian.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::host::port;
use crate::system;

/// Where clients look for it.
const FOLDER: &str = "/var/run/aesmd";
const SOCKET: &str = "/var/run/aesmd/aesm.socket";
/// Bytes of a message at most, beyond which the host ends the connection of all.
const MAX_MESSAGE: usize = 64 << 10;
/// How long to wait for descriptors or memory that a client cannot have now.
const RETRY: Duration = Duration::from_millis(100);

/// Serves the socket from now on.
pub(crate) fn serve() -> io::Result<()> {
    let host = Arc::new(Mutex::new(File::from(system::connect(port::QUOTES)?)));
    fs::create_dir_all(FOLDER)?;
    // The host's, where its /var/run is a folder.
    match fs::remove_file(SOCKET) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET)?;
    fs::set_permissions(SOCKET, Permissions::from_mode(0o666))?;
    thread::Builder::new().spawn(move || {
        for client in listener.incoming() {
            let host = host.clone();
            let served = client.and_then(|client| {
                // A client that goes away does not concern the others.
                thread::Builder::new().spawn(move || drop(answer(client, &host)))
            });
            if served.is_err() {
                thread::sleep(RETRY);
            }
        }
    })?;
    Ok(())
}

/// Answers the requests of one client.
fn answer(mut client: UnixStream, host: &Mutex<File>) -> io::Result<()> {
    loop {
        let request = read_message(&mut client)?;
        let response = {
            let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
            host.write_all(&request)?;
            read_message(&mut *host)?
        };
        client.write_all(&response)?;
    }
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
