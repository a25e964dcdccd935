//! The guest's vsock device and the Unix sockets of the host that it leads to, as Firecracker has them: at
//! `PATH` clients of the host connect to a port of the guest, and `PATH_PORT` is the host's port PORT.

mod dialer;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use cloister_devices::virtio::VsockHost;
use thiserror::Error;

pub use dialer::Dialer;

use crate::qmp::{Listen, MAX_PATH, ServeError, Socket};

/// The lowest CID of a guest: those below are of the hypervisor, the loopback and the host (vsock(7)).
const MIN_CID: u32 = 3;
/// The highest: all ones are any machine's.
const MAX_CID: u32 = u32::MAX - 1;
/// Bytes that a port adds to the name of a socket, at most.
const PORT: usize = "_4294967295".len();

/// Bytes of the name that those of ports begin with, at most.
const MAX_BASE: usize = MAX_PATH - PORT;

/// A vsock device that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VsockConfig {
    /// The guest's CID.
    pub cid: u32,
    /// The socket of the host's clients, whose name begins those of the host's ports.
    pub path: PathBuf,
}

/// Why the value of a vsock device cannot be used. Each message says what to write.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum VsockConfigError {
    /// Not the two keys, in this order.
    #[error("{0:?} is not a CID and a socket: write cid=3,path=SOCKET")]
    Syntax(String),
    /// Not a CID of a guest.
    #[error("{0:?} is not the CID of a guest: write {MIN_CID} to {MAX_CID}")]
    Cid(String),
    /// No socket can have the names of the host's ports.
    #[error(
        "the path has {0} bytes, and the sockets of ports, which begin with it, can have \
         {MAX_PATH}: name one of at most {MAX_BASE}"
    )]
    LongPath(usize),
}

impl VsockConfig {
    /// Reads `cid=CID,path=SOCKET`. The path comes last, and may have commas.
    ///
    /// # Errors
    ///
    /// [`VsockConfigError`].
    pub fn parse(text: &str) -> Result<Self, VsockConfigError> {
        let syntax = || VsockConfigError::Syntax(text.to_owned());
        let rest = text.strip_prefix("cid=").ok_or_else(syntax)?;
        let (cid, path) = rest.split_once(",path=").ok_or_else(syntax)?;
        let number = cid.parse().ok().filter(|cid| (MIN_CID..=MAX_CID).contains(cid));
        let number = number.ok_or_else(|| VsockConfigError::Cid(cid.to_owned()))?;
        match path.len() {
            0 => Err(syntax()),
            long if long > MAX_BASE => Err(VsockConfigError::LongPath(long)),
            _ => Ok(Self { cid: number, path: path.into() }),
        }
    }
}

/// The host's side of a vsock device, open.
#[derive(Debug)]
pub struct HostSockets {
    clients: Socket,
    dialer: Dialer,
}

impl HostSockets {
    /// Makes the socket of the host's clients. `dialer` reaches the host's ports.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn bind(config: &VsockConfig, dialer: Dialer) -> Result<Self, ServeError> {
        let clients = Socket::bind(&Listen { path: config.path.clone(), wait: false })?;
        let refused = |reason| ServeError::Bind { path: config.path.clone(), reason };
        clients.listener.set_nonblocking(true).map_err(refused)?;
        Ok(Self { clients, dialer })
    }
}

impl VsockHost for HostSockets {
    fn connect(&self, port: u32) -> io::Result<OwnedFd> {
        self.dialer.connect(port)
    }

    fn listener(&self) -> Option<BorrowedFd<'_>> {
        Some(self.clients.listener.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_cid_and_a_path_or_an_error_that_says_what_to_write() {
        let long = "x".repeat(100);
        for (text, expected) in [
            ("cid=3,path=/run/v.sock", Ok((3, "/run/v.sock"))),
            ("cid=4294967294,path=a,b", Ok((4294967294, "a,b"))),
            ("path=a", Err("\"path=a\" is not a CID and a socket: write cid=3,path=SOCKET")),
            ("cid=3", Err("\"cid=3\" is not a CID and a socket: write cid=3,path=SOCKET")),
            ("cid=2,path=a", Err("\"2\" is not the CID of a guest: write 3 to 4294967294")),
            ("cid=x,path=a", Err("\"x\" is not the CID of a guest: write 3 to 4294967294")),
            (
                "cid=3,path=",
                Err("\"cid=3,path=\" is not a CID and a socket: write cid=3,path=SOCKET"),
            ),
            (
                &format!("cid=3,path={long}"),
                Err(
                    "the path has 100 bytes, and the sockets of ports, which begin with it, can have \
                     107: name one of at most 96",
                ),
            ),
        ] {
            let found = VsockConfig::parse(text).map_err(|error| error.to_string());

            let expected = expected.map(|(cid, path)| VsockConfig { cid, path: path.into() });
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }
}
