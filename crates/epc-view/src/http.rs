//! GET over HTTP/1.1, and nothing else: a server for clients on the same host.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Connections at a time; others are told to come back.
const CONNECTIONS: usize = 16;
/// Bytes of a request's head at most.
const MAX_HEAD: usize = 8 << 10;
/// How long a client may take for its request, and again for the response.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that is told to come back may take for its request.
const GLANCE: Duration = Duration::from_millis(50);
/// How long to wait before the next connection when the host has no descriptor for one.
const RETRY: Duration = Duration::from_millis(100);

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpAddress {
    /// A TCP port of a loopback address; port 0 is any that is free.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why nothing can be served.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is neither of the two kinds.
    #[error("{0:?} is not an address: write 127.0.0.1:PORT, [::1]:PORT or unix:PATH")]
    Address(String),
    /// An address that other hosts reach.
    #[error("{0} is open to other hosts: write 127.0.0.1:PORT, [::1]:PORT or unix:PATH")]
    NotLoopback(SocketAddr),
    /// The host refuses the address.
    #[error("cannot listen at {address}: {reason}: give another address")]
    Listen {
        /// The address.
        address: String,
        /// What the host said.
        reason: io::Error,
    },
}

impl HttpAddress {
    /// Reads the value of an option.
    ///
    /// # Errors
    ///
    /// [`HttpError::Address`] and [`HttpError::NotLoopback`].
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let address: SocketAddr = match text.strip_prefix("localhost:") {
            Some(port) => (Ipv4Addr::LOCALHOST, port.parse().map_err(|_| wrong())?).into(),
            None => text.parse().map_err(|_| wrong())?,
        };
        if !address.ip().is_loopback() {
            return Err(HttpError::NotLoopback(address));
        }
        Ok(Self::Tcp(address))
    }
}

/// What a request for a target gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpResponse {
    /// The status: a code and its reason.
    pub status: &'static str,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Headers besides those that each response has. Neither part has a line's end.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// A line that says what is wrong.
    #[must_use]
    pub fn error(status: &'static str, line: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: format!("{line}\n").into(),
        }
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A server that listens.
#[derive(Debug)]
pub struct HttpServer {
    listener: Listener,
    /// The socket's file, which goes with the server.
    path: Option<PathBuf>,
}

impl HttpServer {
    /// Listens. A Unix socket on which nobody listens any more is replaced.
    ///
    /// # Errors
    ///
    /// [`HttpError::Listen`].
    pub fn bind(address: &HttpAddress) -> Result<Self, HttpError> {
        let failed = |address: String| move |reason| HttpError::Listen { address, reason };
        match address {
            HttpAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(failed(address.to_string()))?;
                Ok(Self { listener: Listener::Tcp(listener), path: None })
            }
            HttpAddress::Unix(path) => {
                let listener = listen(path).map_err(failed(format!("unix:{}", path.display())))?;
                Ok(Self { listener: Listener::Unix(listener), path: Some(path.clone()) })
            }
        }
    }

    /// Where it listens: a URL without a path, or the address of a Unix socket.
    #[must_use]
    pub fn address(&self) -> String {
        match (&self.listener, &self.path) {
            (Listener::Tcp(listener), _) => listener
                .local_addr()
                .map_or_else(|error| error.to_string(), |address| format!("http://{address}")),
            (Listener::Unix(_), Some(path)) => format!("unix:{}", path.display()),
            (Listener::Unix(_), None) => String::new(),
        }
    }

    /// The socket's file, to be removed when the server ends.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Serves what `answer` returns for a target, a path and what follows it, until the process ends.
    pub fn serve(self, answer: impl Fn(&str) -> HttpResponse + Sync) {
        let busy = |mut connection: Connection| {
            // Of a connection that ends with something unread the client reads no response.
            let _ = connection.read_until(Instant::now() + GLANCE, &mut [0; MAX_HEAD]);
            // Into an empty buffer: that cannot take long.
            let busy = HttpResponse::error("503 Service Unavailable", "too many clients");
            let _ = connection.respond(&busy, true);
        };
        // A client that goes away does not concern the others.
        let serve = |mut connection: Connection| drop(connection.serve(&answer));
        serve_clients(CONNECTIONS, || self.accept(), serve, busy);
    }

    fn accept(&self) -> io::Result<Connection> {
        let connection = match &self.listener {
            Listener::Tcp(listener) => Connection::Tcp(listener.accept()?.0),
            Listener::Unix(listener) => Connection::Unix(listener.accept()?.0),
        };
        match &connection {
            Connection::Tcp(stream) => stream.set_write_timeout(Some(PATIENCE))?,
            Connection::Unix(stream) => stream.set_write_timeout(Some(PATIENCE))?,
        }
        Ok(connection)
    }
}

/// Serves each client that `accept` gives on a thread of its own, `most` at a time, until the process ends; others are
/// turned away.
pub fn serve_clients<C: Send>(
    most: usize,
    accept: impl Fn() -> io::Result<C>,
    serve: impl Fn(C) + Sync,
    turn_away: impl Fn(C),
) {
    let active = AtomicUsize::new(0);
    thread::scope(|scope| {
        loop {
            let Ok(client) = accept() else {
                thread::sleep(RETRY);
                continue;
            };
            let (active, serve) = (&active, &serve);
            if active.fetch_add(1, Ordering::SeqCst) >= most {
                active.fetch_sub(1, Ordering::SeqCst);
                turn_away(client);
                continue;
            }
            let spawned =
                thread::Builder::new().name("client".into()).spawn_scoped(scope, move || {
                    serve(client);
                    active.fetch_sub(1, Ordering::SeqCst);
                });
            if spawned.is_err() {
                active.fetch_sub(1, Ordering::SeqCst);
            }
        }
    });
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
            if !is_socket || UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        outcome => outcome,
    }
}

/// What a request's head asks for: a target, and whether the body is wanted; or what it deserves instead.
fn judge(head: &[u8]) -> Result<(&str, bool), HttpResponse> {
    let bad = || HttpResponse::error(BAD_REQUEST, BAD_REQUEST);
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default().trim_end_matches('\r');
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.0" | "HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    match method {
        "GET" => Ok((target, true)),
        "HEAD" => Ok((target, false)),
        _ => {
            let status = "405 Method Not Allowed";
            let headers = vec![("Allow", "GET, HEAD".to_owned())];
            Err(HttpResponse { headers, ..HttpResponse::error(status, status) })
        }
    }
}

const BAD_REQUEST: &str = "400 Bad Request";

impl Connection {
    fn serve(&mut self, answer: &(impl Fn(&str) -> HttpResponse + Sync)) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut head = Vec::new();
        let (response, body) = loop {
            let ends = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
            if head.len() > MAX_HEAD {
                let status = "431 Request Header Fields Too Large";
                break (HttpResponse::error(status, status), true);
            }
            if ends(b"\r\n\r\n") || ends(b"\n\n") {
                break match judge(&head) {
                    Ok((target, body)) => (answer(target), body),
                    Err(response) => (response, true),
                };
            }
            let mut buffer = [0; 1024];
            match self.read_until(deadline, &mut buffer)? {
                // Half a request, or none.
                0 if head.is_empty() => return Ok(()),
                0 => break (HttpResponse::error(BAD_REQUEST, BAD_REQUEST), true),
                length => head.extend(&buffer[..length]),
            }
        };
        self.respond(&response, body)?;
        // The client reads the response only if nothing that it sent is left unread.
        self.finish(Instant::now() + PATIENCE)
    }

    /// Reads once, until `deadline` at most.
    fn read_until(&mut self, deadline: Instant, buffer: &mut [u8]) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.read(buffer)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.read(buffer)
            }
        }
    }

    fn respond(&mut self, response: &HttpResponse, body: bool) -> io::Result<()> {
        let HttpResponse { status, content_type, headers, body: text } = response;
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n",
            text.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "Connection: close\r\n\r\n";
        let body = if body { &text[..] } else { &[] };
        let all = [head.as_bytes(), body].concat();
        match self {
            Self::Tcp(stream) => stream.write_all(&all),
            Self::Unix(stream) => stream.write_all(&all),
        }
    }

    /// Tells the client that no more comes, and passes over what it still sends.
    fn finish(&mut self, deadline: Instant) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write)?,
            Self::Unix(stream) => stream.shutdown(Shutdown::Write)?,
        }
        let mut buffer = [0; 4096];
        let mut passed = 0;
        while passed < 1 << 20 {
            match self.read_until(deadline, &mut buffer)? {
                0 => break,
                length => passed += length,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_loopback_port_or_a_unix_socket() {
        for (text, expected) in [
            ("127.0.0.1:9100", HttpAddress::Tcp(([127, 0, 0, 1], 9100).into())),
            ("127.1.2.3:0", HttpAddress::Tcp(([127, 1, 2, 3], 0).into())),
            ("localhost:9100", HttpAddress::Tcp(([127, 0, 0, 1], 9100).into())),
            ("[::1]:80", HttpAddress::Tcp(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 80)))),
            ("unix:/run/x", HttpAddress::Unix("/run/x".into())),
            ("unix:a:1", HttpAddress::Unix("a:1".into())),
        ] {
            assert_eq!(HttpAddress::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn other_addresses_are_one_line_that_names_the_option_and_the_fix() {
        let fix = "write 127.0.0.1:PORT, [::1]:PORT or unix:PATH";
        for text in [
            "",
            "9100",
            ":9100",
            "127.0.0.1",
            "127.0.0.1:x",
            "localhost:99999",
            "unix:",
            "/run/x",
            "host:1",
        ] {
            let line = HttpAddress::parse(text).unwrap_err().to_string();
            assert_eq!(line, format!("{text:?} is not an address: {fix}"));
        }
        for text in ["0.0.0.0:9100", "[::]:9100", "10.0.0.1:80"] {
            let line = HttpAddress::parse(text).unwrap_err().to_string();
            assert_eq!(line, format!("{text} is open to other hosts: {fix}"));
        }
    }

    #[test]
    fn a_request_asks_for_a_target_or_gets_what_it_deserves() {
        for (request, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", Ok(("/metrics", true))),
            ("GET /metrics?x=1 HTTP/1.0\r\n", Ok(("/metrics?x=1", true))),
            ("HEAD /metrics HTTP/1.1\n", Ok(("/metrics", false))),
            ("POST /metrics HTTP/1.1\r\n", Err("405 Method Not Allowed")),
            ("GET /metrics HTTP/2\r\n", Err("400 Bad Request")),
            ("GET /metrics\r\n", Err("400 Bad Request")),
            ("GET  /metrics HTTP/1.1\r\n", Err("400 Bad Request")),
            ("\r\n", Err("400 Bad Request")),
            ("", Err("400 Bad Request")),
        ] {
            let found = judge(request.as_bytes()).map_err(|response| response.status);
            assert_eq!(found, expected, "{request:?}");
        }
        assert_eq!(judge(b"\xff\xfe / HTTP/1.1\r\n").unwrap_err().status, "400 Bad Request");
    }
}
