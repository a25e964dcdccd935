//! The client's side of QMP, as far as one command needs it: the greeting, the capabilities, and
//! answers with events in between.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::report::{EpcReport, VERSION};

/// Bytes of one line at most. Reports with page maps have less than 2 MiB.
const MAX_LINE: usize = 16 << 20;

/// Why there is no report. Each message names the socket and the fix.
#[derive(Debug, Error)]
pub enum QmpError {
    /// The socket's name does not fit in an address.
    #[error("{}: a socket's name has at most 107 bytes: give a shorter one", .0.display())]
    Name(PathBuf),
    /// Nobody answers there.
    #[error("{}: {reason}: {fix}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
        /// How it may be meant.
        fix: &'static str,
    },
    /// The peer took longer than it may.
    #[error(
        "{}: no answer within {} ms: end the other client of this socket, or the machine if it hangs",
        .path.display(),
        .limit.as_millis()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long it may take.
        limit: Duration,
    },
    /// The peer closed the connection, as at the machine's end.
    #[error("{}: the machine ended: start it again to see more", .0.display())]
    Ended(PathBuf),
    /// The connection failed in another way.
    #[error("{}: {reason}: connect again", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// What the peer says is not QMP.
    #[error("{}: {what}: name the socket of a QMP monitor", .path.display())]
    NotQmp {
        /// The socket.
        path: PathBuf,
        /// What it said instead.
        what: String,
    },
    /// The peer refused a command.
    #[error("{}: it refuses {command}: {reason}: name the socket of a machine of Cloister", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The command.
        command: &'static str,
        /// The peer's description.
        reason: String,
    },
    /// The report is none that this program reads.
    #[error("{}: {what}: use the cloister that runs the machine", .path.display())]
    Report {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl QmpError {
    /// Whether the machine has just ended.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// A line that the peer sent: a greeting, an event or an answer. Other keys say nothing to us.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<Value>,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    desc: String,
}

/// A connection to the QMP socket of a machine.
#[derive(Debug)]
pub struct QmpClient {
    path: PathBuf,
    stream: UnixStream,
    /// What was received and not looked at yet.
    received: Vec<u8>,
    /// How much of it has no line end for certain.
    searched: usize,
    /// How long the peer may take for each answer.
    limit: Duration,
    commands: u64,
}

impl QmpClient {
    /// Connects, reads the greeting and leaves capabilities negotiation.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn connect(path: &Path, limit: Duration) -> Result<Self, QmpError> {
        let address = SocketAddrUnix::new(path).map_err(|_| QmpError::Name(path.to_owned()))?;
        let stream = open(&address, limit).map_err(|reason| QmpError::Connect {
            path: path.to_owned(),
            fix: match reason.kind() {
                ErrorKind::NotFound => {
                    "the machine has ended, or has another socket: \
                     start it, or name that of its QMP monitor"
                }
                ErrorKind::ConnectionRefused => {
                    "the machine has ended, or this is not a socket: start it again, or name another"
                }
                ErrorKind::PermissionDenied => "run as the user that the machine runs as",
                ErrorKind::WouldBlock => "end the other clients of this socket",
                _ => "name the socket of a QMP monitor",
            },
            reason,
        })?;
        let mut client = Self {
            path: path.to_owned(),
            stream,
            received: Vec::new(),
            searched: 0,
            limit,
            commands: 0,
        };
        let deadline = Instant::now() + limit;
        let line = client.line(deadline)?;
        if client.parse(&line)?.greeting.is_none() {
            return Err(client.not_qmp("it does not greet as QMP does"));
        }
        client.command("qmp_capabilities", &json!({}), deadline)?;
        Ok(client)
    }

    /// Asks for the EPC of the machine.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn epc_report(&mut self, page_map: bool) -> Result<EpcReport, QmpError> {
        let arguments = json!({ "page-map": page_map });
        let answer = self.command("x-query-sgx-epc", &arguments, Instant::now() + self.limit)?;
        let unreadable = |what| QmpError::Report { path: self.path.clone(), what };
        let version = answer.get("version");
        if version != Some(&Value::from(VERSION)) {
            let version = version.map_or_else(|| "no".to_owned(), ToString::to_string);
            return Err(unreadable(format!(
                "its report has {version} version instead of {VERSION}"
            )));
        }
        serde_json::from_value(answer)
            .map_err(|error| unreadable(format!("its report is unreadable ({error})")))
    }

    /// Sends a command and returns what it returns; events that come first are passed over.
    fn command(
        &mut self,
        command: &'static str,
        arguments: &Value,
        deadline: Instant,
    ) -> Result<Value, QmpError> {
        self.commands += 1;
        let id = Value::from(self.commands);
        let mut text = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        text.push('\n');
        self.stream.write_all(text.as_bytes()).map_err(|reason| self.failed(reason))?;
        loop {
            let line = self.line(deadline)?;
            let line = self.parse(&line)?;
            let ours = line.id.as_ref() == Some(&id);
            if let Some(Refusal { desc }) = line.error {
                // Without an id it answers what was not a command; then that was ours.
                if line.id.is_none() || ours {
                    let reason = printable(&desc, 200);
                    return Err(QmpError::Refused { path: self.path.clone(), command, reason });
                }
            } else if let Some(returned) = line.returned {
                if ours {
                    return Ok(returned);
                }
            } else if line.event.is_none() {
                return Err(self.not_qmp("it sends what is neither an answer nor an event"));
            }
            if Instant::now() >= deadline {
                return Err(self.silent());
            }
        }
    }

    /// The next line that is not empty.
    fn line(&mut self, deadline: Instant) -> Result<String, QmpError> {
        loop {
            let rest = &self.received[self.searched..];
            if let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=self.searched + end).collect();
                self.searched = 0;
                let line = String::from_utf8(line).map_err(|_| self.not_qmp("it sends no text"))?;
                if line.trim().is_empty() {
                    continue;
                }
                return Ok(line);
            }
            self.searched = self.received.len();
            if self.searched > MAX_LINE {
                return Err(self.not_qmp("it sends a line without an end"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.silent());
            }
            let mut buffer = [0; 1 << 16];
            let outcome = self.stream.set_read_timeout(Some(left));
            match outcome.and_then(|()| self.stream.read(&mut buffer)) {
                Ok(0) => return Err(QmpError::Ended(self.path.clone())),
                Ok(length) => self.received.extend(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(reason) => return Err(self.failed(reason)),
            }
        }
    }

    fn parse(&self, line: &str) -> Result<Line, QmpError> {
        serde_json::from_str(line).map_err(|_| {
            self.not_qmp(&format!("it sends {:?}, which is not a JSON object", printable(line, 40)))
        })
    }

    fn failed(&self, reason: io::Error) -> QmpError {
        match reason.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.silent(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                QmpError::Ended(self.path.clone())
            }
            _ => QmpError::Io { path: self.path.clone(), reason },
        }
    }

    fn silent(&self) -> QmpError {
        QmpError::Silent { path: self.path.clone(), limit: self.limit }
    }

    fn not_qmp(&self, what: &str) -> QmpError {
        QmpError::NotQmp { path: self.path.clone(), what: what.to_owned() }
    }
}

impl Drop for QmpClient {
    fn drop(&mut self) {
        // So that a server which waits for more learns at once that there is none.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Connects, for no longer than `limit` even if the peer's queue is full.
fn open(address: &SocketAddrUnix, limit: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    loop {
        match connect(&socket, address) {
            Ok(()) => return Ok(socket.into()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The first `length` characters of a peer's text on one line of a terminal.
pub(super) fn printable(text: &str, length: usize) -> String {
    let text = text.trim();
    let plain = |letter: char| if letter.is_control() { '?' } else { letter };
    text.chars().take(length).map(plain).collect()
}
