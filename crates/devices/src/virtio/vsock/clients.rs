//! Clients on the host that want to reach a socket of the guest, as Firecracker has them: a client connects
//! to the device's Unix socket and says `CONNECT PORT`, and is told `OK PORT` when the guest has accepted.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// The longest line of a client: `CONNECT ` and a number of 32 bits.
const LINE: usize = 20;

/// A client that has not said yet what it wants.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    line: Vec<u8>,
}

/// What a client has said.
#[derive(Debug)]
pub(super) enum Said {
    /// Not all yet.
    Unfinished,
    /// The port of the guest that it wants, on this socket.
    Connect(OwnedFd, u32),
    /// Nothing that has a meaning, or nothing any more: the client is forgotten.
    Nonsense,
}

/// Clients that have not said yet what they want, by the host's ports that they have.
#[derive(Debug, Default)]
pub(super) struct Clients(BTreeMap<u32, Client>);

impl Clients {
    pub(super) fn add(&mut self, port: u32, socket: OwnedFd) {
        self.0.insert(port, Client { socket, line: Vec::new() });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, port: u32) -> bool {
        self.0.contains_key(&port)
    }

    pub(super) fn socket(&self, port: u32) -> Option<&OwnedFd> {
        self.0.get(&port).map(|client| &client.socket)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Reads what a client says, and no byte after its line: that is for the guest.
    pub(super) fn hear(&mut self, port: u32) -> Said {
        let Some(client) = self.0.get_mut(&port) else { return Said::Nonsense };
        loop {
            let mut byte = [0];
            match recv(&client.socket, &mut byte[..], RecvFlags::DONTWAIT) {
                Ok((1, _)) if byte == *b"\n" => break,
                Ok((1, _)) if client.line.len() < LINE => client.line.push(byte[0]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Said::Unfinished,
                _ => {
                    self.0.remove(&port);
                    return Said::Nonsense;
                }
            }
        }
        let Some(Client { socket, line }) = self.0.remove(&port) else { return Said::Nonsense };
        match wanted(&line) {
            Some(wanted) => Said::Connect(socket, wanted),
            None => Said::Nonsense,
        }
    }
}

/// The port that a line asks for. No socket has the port of all ones (VMADDR_PORT_ANY).
fn wanted(line: &[u8]) -> Option<u32> {
    let number = line.strip_prefix(b"CONNECT ")?;
    let number = std::str::from_utf8(number.trim_ascii()).ok()?;
    number.parse().ok().filter(|&port| port != u32::MAX)
}

/// Tells a client that the guest has accepted.
pub(super) fn tell_accepted(socket: &OwnedFd, port: u32) {
    // A socket to which nothing was written takes so much, or its client is gone, which shows later.
    let line = format!("OK {port}\n");
    let _ = send(socket, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn a_line_asks_for_a_port_or_for_nothing() {
        for (line, port) in [
            ("CONNECT 52", Some(52)),
            ("CONNECT 52\r", Some(52)),
            ("CONNECT 4294967294", Some(u32::MAX - 1)),
            ("CONNECT 4294967295", None),
            ("CONNECT 4294967296", None),
            ("CONNECT -1", None),
            ("CONNECT", None),
            ("connect 1", None),
            ("", None),
        ] {
            assert_eq!(wanted(line.as_bytes()), port, "{line}");
        }
    }
}
