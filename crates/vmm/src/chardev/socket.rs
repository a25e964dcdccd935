//! A console on a socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::own_file::OwnFile;
use crate::qmp::Socket;
use crate::sandbox::{Sandbox, ThreadKind};
use crate::terminal::{self, Consumer};

/// How often one that waits for a client looks whether it is still to wait, and the pause after the
/// host had no descriptor for one.
const LOOK: Duration = Duration::from_millis(50);
/// How long output waits for a client that does not read. The guest waits with it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before output is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// A socket that the consoles are on. Its file goes with it.
#[derive(Debug)]
pub struct ConsoleSocket {
    shared: Arc<Shared>,
    wait: bool,
    _file: Option<OwnFile>,
}

/// What the thread that waits for clients and the consoles share.
#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    client: Mutex<Option<Client>>,
    /// There was a client.
    connected: AtomicBool,
}

#[derive(Clone, Debug)]
struct Client {
    stream: Arc<OwnedFd>,
    /// It did not read for as long as output waits: nothing waits for it until it reads again.
    stuck: bool,
}

impl ConsoleSocket {
    pub(super) fn new(socket: Socket) -> Self {
        let Socket { listener, file, wait } = socket;
        let client = Mutex::new(None);
        let shared = Shared { listener, client, connected: AtomicBool::new(false) };
        Self { shared: Arc::new(shared), wait, _file: file }
    }

    pub(super) fn output(&self) -> impl Write + Send + use<> {
        Output(self.shared.clone())
    }

    /// Passes what clients send on to `consumer`, on a thread of its own, one client after the
    /// other.
    pub(super) fn serve(
        &self,
        sandbox: Sandbox,
        consumer: impl Consumer + 'static,
    ) -> io::Result<()> {
        let shared = self.shared.clone();
        thread::Builder::new().name("console-socket".into()).spawn(move || {
            sandbox.confine(ThreadKind::Console);
            loop {
                match shared.accept() {
                    Ok(stream) => terminal::pump(&mut Input(stream), None, &consumer),
                    Err(error) => {
                        tracing::warn!(%error, "no client for the console");
                        thread::sleep(LOOK);
                    }
                }
                *shared.client() = None;
            }
        })?;
        Ok(())
    }

    /// Waits for the first client if the machine is to start with one, or until `given_up`.
    pub(super) fn wait_for_client(&self, given_up: impl Fn() -> bool) {
        while self.wait && !self.shared.connected.load(Ordering::SeqCst) && !given_up() {
            thread::sleep(LOOK);
        }
    }
}

impl Shared {
    /// Waits for a client, which has the console from then on.
    fn accept(&self) -> io::Result<Arc<OwnedFd>> {
        wait_for_input(&self.listener)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = Arc::new(accept_with(&self.listener, flags)?);
        *self.client() = Some(Client { stream: stream.clone(), stuck: false });
        self.connected.store(true, Ordering::SeqCst);
        Ok(stream)
    }

    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a client of a socket, or for what a client sends.
fn wait_for_input(fd: &impl rustix::fd::AsFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            waited => return waited.map(drop).map_err(io::Error::from),
        }
    }
}

/// What a client sends.
struct Input(Arc<OwnedFd>);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            wait_for_input(&self.0)?;
            match rustix::io::read(&self.0, &mut *buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                read => return Ok(read?),
            }
        }
    }
}

/// What the consoles print, on its way to the client.
struct Output(Arc<Shared>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut client = self.0.client();
        match &mut *client {
            Some(client) => client.send(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client {
    /// Sends what the client has room for. What one does not take that does not read, or is gone,
    /// is dropped.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            match rustix::io::write(&self.stream, bytes) {
                Ok(sent) => {
                    self.stuck = false;
                    return Ok(sent);
                }
                Err(Errno::INTR) => return Err(ErrorKind::Interrupted.into()),
                Err(Errno::AGAIN) if !self.stuck => {
                    self.stuck = start.elapsed() > PATIENCE;
                    thread::sleep(RETRY);
                }
                Err(_) => return Ok(bytes.len()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::sync::mpsc;

    use super::*;
    use crate::qmp::Listen;

    struct Received(mpsc::Sender<Vec<u8>>);

    impl Consumer for Received {
        fn send(&self, bytes: &[u8]) -> usize {
            self.0.send(bytes.to_vec()).unwrap();
            bytes.len()
        }

        fn quit(&self) {}
    }

    /// A console whose input comes out of the receiver.
    fn served(name: &str, wait: bool) -> (ConsoleSocket, PathBuf, mpsc::Receiver<Vec<u8>>) {
        let name = format!("cloister-console-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listen = Listen::new(&path, wait).unwrap();
        let console = ConsoleSocket::new(Socket::bind(&listen).unwrap());
        let (sender, received) = mpsc::channel();
        console.serve(Sandbox::off(), Received(sender)).unwrap();
        (console, path, received)
    }

    #[test]
    fn one_client_after_the_other_has_the_console() {
        let (console, path, received) = served("clients", false);

        for text in ["first", "second"] {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(text.as_bytes()).unwrap();
            assert_eq!(received.recv().unwrap(), text.as_bytes());
            console.output().write_all(text.as_bytes()).unwrap();
            let mut answer = vec![0; text.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, text.as_bytes());
        }
    }

    #[test]
    fn without_a_client_output_is_dropped() {
        let (console, ..) = served("nobody", false);

        console.output().write_all(b"to nobody").unwrap();
    }

    #[test]
    fn a_client_that_does_not_read_holds_the_guest_up_once() {
        let (console, path, received) = served("stuck", true);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"here").unwrap();
        assert_eq!(received.recv().unwrap(), b"here");

        // Past all that the host buffers.
        let start = Instant::now();
        for _ in 0..4096 {
            console.output().write_all(&[b'x'; 1024]).unwrap();
        }
        let elapsed = start.elapsed();
        client.read_exact(&mut vec![0; 64 << 10]).unwrap();
        console.output().write_all(b"again").unwrap();
        *console.shared.client() = None;
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();

        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
        assert!(rest.ends_with(b"again"));
    }

    #[test]
    fn a_machine_waits_for_its_first_client_or_its_end() {
        let (console, path, _received) = served("waiting", true);

        console.wait_for_client(|| true);
        let _client = UnixStream::connect(&path).unwrap();
        console.wait_for_client(|| false);

        drop(console);
        assert!(!path.exists());
    }
}
