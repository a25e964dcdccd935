//! The value of `--gdb`, and the socket that it names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use thiserror::Error;

use crate::own_file::OwnFile;
use crate::qmp::{self, Listen, ListenError, ServeError};

/// Where a debugger connects to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A TCP port of the host itself.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(Listen),
}

/// Why the value of `--gdb` cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AddressError {
    /// Neither of the two kinds.
    #[error("{0:?} is neither a port nor a Unix socket: write tcp:127.0.0.1:PORT or unix:PATH")]
    Kind(String),
    /// Not a port.
    #[error("{0:?} is not a port: write tcp:127.0.0.1:PORT with a number of 1 to 65535")]
    Port(String),
    /// Not an address of the host itself.
    #[error(
        "{0} can be reached from other hosts, and whoever reaches it owns the machine: \
         write tcp:127.0.0.1:PORT"
    )]
    Remote(String),
    /// Not a socket's path, or not what may follow it.
    #[error(transparent)]
    Unix(#[from] ListenError),
}

impl Address {
    /// Reads the value of `--gdb`: `tcp:[HOST]:PORT` or `unix:PATH`, then perhaps `,wait=on|off`, which
    /// says whether the machine waits for the debugger.
    ///
    /// # Errors
    ///
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<(Self, bool), AddressError> {
        if text.starts_with("unix:") {
            let listen = Listen::parse(text)?;
            let wait = listen.wait;
            return Ok((Self::Unix(Listen { wait: false, ..listen }), wait));
        }
        let kind = || AddressError::Kind(text.to_owned());
        let rest = text.strip_prefix("tcp:").ok_or_else(kind)?;
        let (address, wait) = match rest.split_once(',') {
            None => (rest, false),
            Some((address, "wait=on")) => (address, true),
            Some((address, "wait=off")) => (address, false),
            Some((_, option)) => return Err(ListenError::Option(option.to_owned()).into()),
        };
        Ok((Self::tcp(address)?, wait))
    }

    /// Reads `[HOST]:PORT`. Without a host it is this one; QEMU takes every address that it has.
    ///
    /// # Errors
    ///
    /// [`AddressError::Port`], [`AddressError::Remote`].
    pub fn tcp(text: &str) -> Result<Self, AddressError> {
        let port = || AddressError::Port(text.to_owned());
        let (host, number) = text.rsplit_once(':').ok_or_else(port)?;
        let number: u16 = number.parse().ok().filter(|&number| number != 0).ok_or_else(port)?;
        let host = match host.trim_start_matches('[').trim_end_matches(']') {
            "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().map_err(|_| AddressError::Remote(host.to_owned()))?,
        };
        if !host.is_loopback() {
            return Err(AddressError::Remote(host.to_string()));
        }
        Ok(Self::Tcp(SocketAddr::new(host, number)))
    }
}

/// Why a debugger's socket cannot be made. The messages follow the option's name.
#[derive(Debug, Error)]
pub enum BindError {
    /// A port.
    #[error("cannot listen on {address}: {reason}: name another port")]
    Port {
        /// Which.
        address: SocketAddr,
        /// What the host said.
        reason: io::Error,
    },
    /// A socket's file.
    #[error(transparent)]
    File(#[from] ServeError),
}

/// A socket that a debugger can connect to.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: OwnedFd,
    /// Removed with the socket.
    pub(super) file: Option<OwnFile>,
}

impl Socket {
    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(address: &Address) -> Result<Self, BindError> {
        match address {
            Address::Tcp(address) => {
                let listener = bind_tcp(*address)
                    .map_err(|reason| BindError::Port { address: *address, reason })?;
                Ok(Self { listener, file: None })
            }
            Address::Unix(listen) => {
                let qmp::Socket { listener, file, .. } = qmp::Socket::bind(listen)?;
                Ok(Self { listener: listener.into(), file })
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Packets are small and answered one by one. Connections have it from here.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    Ok(listener.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_port_of_this_host_or_a_path_and_perhaps_whether_to_wait() {
        let tcp = |text: &str, wait| Ok((Address::Tcp(text.parse().unwrap()), wait));
        let unix = |path: &str| Address::Unix(Listen { path: path.into(), wait: false });
        for (text, expected) in [
            ("tcp:127.0.0.1:1234", tcp("127.0.0.1:1234", false)),
            ("tcp::1234", tcp("127.0.0.1:1234", false)),
            ("tcp:localhost:1,wait=on", tcp("127.0.0.1:1", true)),
            ("tcp:[::1]:65535,wait=off", tcp("[::1]:65535", false)),
            ("unix:/run/gdb", Ok((unix("/run/gdb"), false))),
            ("unix:g,wait=on", Ok((unix("g"), true))),
        ] {
            assert_eq!(Address::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn each_wrong_value_is_one_line_with_the_fix() {
        for (text, line) in [
            (
                "1234",
                "\"1234\" is neither a port nor a Unix socket: \
                 write tcp:127.0.0.1:PORT or unix:PATH",
            ),
            (
                "tcp:1234",
                "\"1234\" is not a port: write tcp:127.0.0.1:PORT with a number of 1 to 65535",
            ),
            (
                "tcp::0",
                "\":0\" is not a port: write tcp:127.0.0.1:PORT with a number of 1 to 65535",
            ),
            (
                "tcp:0.0.0.0:1",
                "0.0.0.0 can be reached from other hosts, and whoever reaches it owns the machine: \
                 write tcp:127.0.0.1:PORT",
            ),
            (
                "tcp::1,x",
                "unknown option \"x\": after the path only wait=on or wait=off may follow",
            ),
            ("unix:", "the path of the socket is missing: write unix:PATH[,wait=on|off]"),
        ] {
            assert_eq!(Address::parse(text).unwrap_err().to_string(), line, "{text}");
        }
    }
}
