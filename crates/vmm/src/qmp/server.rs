//! The thread that serves clients, one after the other.
//!
//! Everything is opened before the machine runs. From then on the thread makes these system calls and
//! no others besides those of locks, memory and the log: ppoll, accept4, read, write and close; the
//! socket's file is removed by whoever drops the [`Server`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use thiserror::Error;

use super::context::Context;
use super::events::EventQueue;
use super::listen::Socket;
use super::session::Session;
use crate::own_file::OwnFile;
use crate::sandbox::{Sandbox, ThreadKind};
use crate::serving::{Bell, wait_for_end};

/// How long a client has at the machine's end to read what is left for it.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long the thread may take beyond that, in the middle of a command.
const LAST_COMMAND: Duration = Duration::from_millis(250);
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
    _file: Option<OwnFile>,
}

/// What the thread and others share.
#[derive(Debug)]
struct Shared {
    events: EventQueue,
    /// Rung when there is something new here.
    bell: Bell,
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
        let bell = Bell::new().map_err(ServeError::Host)?;
        let shared = Arc::new(Shared {
            events: EventQueue::default(),
            bell,
            ending: AtomicBool::new(false),
            connected: Mutex::new(false),
            connection: Condvar::new(),
        });
        context.control.watch({
            let shared = shared.clone();
            move |event| {
                shared.events.push(event);
                shared.bell.ring();
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
        self.shared.bell.ring();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.bid_farewell();
        let Some(thread) = self.thread.take() else { return };
        // Not joined: it may be in a command that the host holds up.
        wait_for_end(&thread, FAREWELL + LAST_COMMAND);
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
        if !self.shared.bell.wait(socket, interest, timeout) {
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
