//! The thread that serves clients, one after the other.
//!
//! Everything is opened before the machine runs. From then on the thread makes these system calls and
//! no others besides those of locks, memory and the log: ppoll, accept4, read, write and close; the
//! socket's file is removed by whoever drops the [`Server`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use thiserror::Error;

use super::context::Context;
use super::events::EventQueue;
use super::listen::Socket;
use super::session::Session;
use crate::own_file::OwnFile;
use crate::sandbox::{Sandbox, ThreadKind};

/// How long a client has at the machine's end to read what is left for it.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long the thread may take beyond that, in the middle of a command.
const LAST_COMMAND: Duration = Duration::from_millis(250);
/// How often one that waits for the thread looks.
const END_LOOK: Duration = Duration::from_millis(2);
/// How often one that waits for a client looks whether it is still to wait.
const LOOK: Duration = Duration::from_millis(50);
/// Pause after the host had no descriptor for a client.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes taken from the client at a time.
const CHUNK: usize = 16 << 10;

/// Why a monitor cannot be served. The messages follow the option's name.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The path is that of a file that must not be replaced.
    #[error("{path} exists and is not a socket: remove it or name another path", path = .0.display())]
    NotSocket(PathBuf),
    /// Somebody listens on it.
    #[error(
        "{path} is the socket of a running process: end it, or name another path",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error(
        "cannot listen on {path}: {reason}: name a path in a directory that can be written to",
        path = .path.display()
    )]
    Bind {
        /// The socket's file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// The host has no thread or descriptor.
    #[error("cannot start the monitor: {0}: let the host have more threads and open files")]
    Host(io::Error),
}

/// A monitor. Dropping it lets the client read what is left, ends the connection and removes the
/// socket's file.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    wait: bool,
    _file: OwnFile,
}

/// What the thread and others share.
#[derive(Debug)]
struct Shared {
    events: EventQueue,
    /// Readable when there is something new here.
    wake: OwnedFd,
    ending: AtomicBool,
    connected: Mutex<bool>,
    connection: Condvar,
}

impl Server {
    /// Starts a thread, confined by `sandbox`, that serves the clients of `socket`.
    ///
    /// # Errors
    ///
    /// [`ServeError::Host`].
    pub fn start(socket: Socket, context: Context, sandbox: Sandbox) -> Result<Self, ServeError> {
        let Socket { listener, file, wait } = socket;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| ServeError::Host(error.into()))?;
        let shared = Arc::new(Shared {
            events: EventQueue::default(),
            wake,
            ending: AtomicBool::new(false),
            connected: Mutex::new(false),
            connection: Condvar::new(),
        });
        context.control.watch({
            let shared = shared.clone();
            move |event| {
                shared.events.push(event);
                shared.wake();
            }
        });
        let thread = thread::Builder::new().name("qmp".into()).spawn({
            let shared = shared.clone();
            move || {
                sandbox.confine(ThreadKind::Qmp);
                Monitor { listener: listener.into(), context, shared, client: None }.run();
            }
        });
        let thread = Some(thread.map_err(ServeError::Host)?);
        Ok(Self { shared, thread, wait, _file: file })
    }

    /// Waits for the first client, if the machine is to start with one, or until `given_up`.
    pub fn wait_for_client(&self, given_up: impl Fn() -> bool) {
        if !self.wait {
            return;
        }
        let mut connected = self.shared.connected.lock().unwrap_or_else(PoisonError::into_inner);
        while !*connected && !given_up() {
            let waited = self.shared.connection.wait_timeout(connected, LOOK);
            connected = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Server {
    /// Lets the client read what is left, which dropping the monitor waits for. Several monitors bid
    /// farewell at the same time.
    pub fn bid_farewell(&self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.bid_farewell();
        let Some(thread) = self.thread.take() else { return };
        // Not joined: it may be in a command that the host holds up.
        let end = Instant::now() + FAREWELL + LAST_COMMAND;
        while !thread.is_finished() && Instant::now() < end {
            thread::sleep(END_LOOK);
        }
    }
}

impl Shared {
    fn wake(&self) {
        // It can only fail when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread's own.
struct Monitor {
    listener: OwnedFd,
    context: Context,
    shared: Arc<Shared>,
    client: Option<Client>,
}

struct Client {
    socket: OwnedFd,
    session: Session,
}

impl Monitor {
    fn run(mut self) {
        let mut end = None;
        loop {
            // First the flag: what was told before it was set is sent.
            if end.is_none() && self.shared.ending.load(Ordering::SeqCst) {
                end = Some(Instant::now() + FAREWELL);
            }
            let connected = self.client.as_mut().is_some_and(|client| {
                client.session.work(&self.context, &self.shared.events);
                client.write() && !client.session.is_over()
            });
            if !connected {
                self.client = None;
                // Nobody was there to hear of them.
                while self.shared.events.pop().is_some() {}
            }
            let sent_all =
                self.client.as_ref().is_none_or(|client| client.session.output().is_empty());
            if end.is_some_and(|end| sent_all || Instant::now() >= end) {
                return;
            }
            self.wait(end);
        }
    }

    /// Waits for something to do, and takes what came.
    fn wait(&mut self, end: Option<Instant>) {
        let (socket, interest) = match &self.client {
            Some(client) => (client.socket.as_fd(), client.interest()),
            None => (self.listener.as_fd(), PollFlags::IN),
        };
        let timeout = end.map(|end| end.saturating_duration_since(Instant::now()));
        let [woken, ready] =
            poll_both((self.shared.wake.as_fd(), PollFlags::IN), (socket, interest), timeout);
        if woken {
            let mut counter = [0; 8];
            // WouldBlock: another look took it.
            let _ = rustix::io::read(&self.shared.wake, &mut counter);
        }
        if !ready {
            return;
        }
        if let Some(client) = &mut self.client {
            let there = client.read();
            if !there {
                self.client = None;
            }
        } else if end.is_none() {
            self.accept();
        }
    }

    fn accept(&mut self) {
        match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                tracing::debug!("a QMP client connects");
                self.client = Some(Client { socket, session: Session::new() });
                *self.shared.connected.lock().unwrap_or_else(PoisonError::into_inner) = true;
                self.shared.connection.notify_all();
            }
            // The client is gone already.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a QMP client");
                thread::sleep(RETRY);
            }
        }
    }
}

impl Client {
    /// What to wait for. A client that does not read gets no answers and is asked for no requests.
    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, self.session.wants_input());
        interest.set(PollFlags::OUT, !self.session.output().is_empty());
        interest
    }

    /// Takes what there is to read. Returns whether the client is still there.
    fn read(&mut self) -> bool {
        if !self.session.wants_input() {
            return true;
        }
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.socket, &mut chunk) {
            Ok(length) => {
                self.session.receive(&chunk[..length]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Sends as much as the socket takes. Returns whether the client is still there.
    fn write(&mut self) -> bool {
        while !self.session.output().is_empty() {
            match rustix::io::write(&self.socket, self.session.output()) {
                Ok(length) => self.session.sent(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

/// Waits until one of two descriptors has what it is waited for, or until `timeout` is over.
fn poll_both(
    first: (BorrowedFd<'_>, PollFlags),
    second: (BorrowedFd<'_>, PollFlags),
    timeout: Option<Duration>,
) -> [bool; 2] {
    let mut descriptors =
        [first, second].map(|(descriptor, flags)| PollFd::from_borrowed_fd(descriptor, flags));
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(&mut descriptors, timeout.as_ref()) {
        Ok(_) => descriptors.map(|descriptor| !descriptor.revents().is_empty()),
        // Interrupted: the caller looks again.
        Err(_) => [false; 2],
    }
}
