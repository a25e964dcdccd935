//! The thread that serves debuggers, one after the other.
//!
//! A machine stops when a debugger connects, and goes on when it leaves, in whatever way. The thread makes
//! these system calls besides those of locks, memory and the log: ppoll, accept4, read, write and close.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use thiserror::Error;

use super::address::Socket;
use super::target::Debugged;
use crate::machine::{Control, MachineEvent};
use crate::own_file::OwnFile;
use crate::sandbox::{Sandbox, ThreadKind};
use crate::serving::{Bell, wait_for_end};

/// How long the thread has at the machine's end to tell the debugger.
const FAREWELL: Duration = Duration::from_millis(250);
/// Pause after the host had no descriptor for a debugger.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes taken from the debugger at a time.
const CHUNK: usize = 4096;

/// The host has no thread or descriptor.
#[derive(Debug, Error)]
#[error("cannot serve the debugger: {0}: let the host have more threads and open files")]
pub struct StartError(io::Error);

/// What serves debuggers. Dropping it tells the one that is there of the machine's end.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    _file: Option<OwnFile>,
}

/// What the thread and others share.
#[derive(Debug)]
struct Shared {
    /// Rung when the machine may have stopped.
    bell: Bell,
    ending: AtomicBool,
}

impl Server {
    /// Starts a thread, confined by `sandbox`, that serves the debuggers of a machine with `cpus`
    /// processors.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(
        socket: Socket,
        control: &Control,
        cpus: u32,
        sandbox: Sandbox,
    ) -> Result<Self, StartError> {
        let Socket { listener, file } = socket;
        let bell = Bell::new().map_err(StartError)?;
        let shared = Arc::new(Shared { bell, ending: AtomicBool::new(false) });
        control.on_debug_stop({
            let shared = shared.clone();
            move || shared.bell.ring()
        });
        control.watch({
            let shared = shared.clone();
            move |event| {
                if matches!(event, MachineEvent::Stop | MachineEvent::Shutdown(_)) {
                    shared.bell.ring();
                }
            }
        });
        let target = Debugged::new(control.clone(), cpus);
        let thread = thread::Builder::new().name("gdb".into()).spawn({
            let shared = shared.clone();
            move || {
                sandbox.confine(ThreadKind::Gdb);
                serve(&listener, &shared, target);
            }
        });
        Ok(Self { shared, thread: thread.map_err(StartError)?, _file: file })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.bell.ring();
        // Not joined: the debugger may not read.
        wait_for_end(&self.thread, FAREWELL);
    }
}

impl Shared {
    /// Waits until `fd` is ready, and says whether it is, or until the bell is rung.
    fn wait(&self, fd: &OwnedFd, interest: PollFlags) -> bool {
        self.bell.wait(fd.as_fd(), interest, None)
    }

    fn ends(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }
}

fn serve(listener: &OwnedFd, shared: &Arc<Shared>, mut target: Debugged) {
    while !shared.ends() {
        if !shared.wait(listener, PollFlags::IN) {
            // One that kept a breakpoint after the debugger left.
            target.release_leftover();
            continue;
        }
        match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                tracing::debug!("a debugger connects");
                let client = Client { socket, shared: shared.clone(), output: Vec::new() };
                target.stop();
                match session(client, &mut target) {
                    Ok(DisconnectReason::Kill) => target.kill(),
                    Ok(reason) => tracing::debug!(?reason, "the debugger leaves"),
                    Err(error) => tracing::debug!(%error, "the debugger is gone"),
                }
                target.release();
            }
            // It is gone already.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a debugger");
                thread::sleep(RETRY);
            }
        }
    }
}

/// One debugger's conversation, and how it ended.
///
/// # Errors
///
/// The debugger is gone without a word, or does not speak the protocol.
fn session(client: Client, target: &mut Debugged) -> Result<DisconnectReason, SessionError> {
    let shared = client.shared.clone();
    let mut input = VecDeque::new();
    let mut stub = GdbStub::new(client).run_state_machine(target).map_err(protocol)?;
    loop {
        stub = match stub {
            GdbStubStateMachine::Idle(mut idle) => match input.pop_front() {
                Some(byte) => idle.incoming_data(target, byte).map_err(protocol)?,
                None => {
                    idle.borrow_conn().receive(&mut input)?;
                    if shared.ends() {
                        return Ok(DisconnectReason::Disconnect);
                    }
                    idle.into()
                }
            },
            GdbStubStateMachine::Running(mut running) => match input.pop_front() {
                Some(byte) => running.incoming_data(target, byte).map_err(protocol)?,
                None => match target.stopped() {
                    Some(reason) => running.report_stop(target, reason).map_err(protocol)?,
                    None => {
                        running.borrow_conn().receive(&mut input)?;
                        running.into()
                    }
                },
            },
            GdbStubStateMachine::CtrlCInterrupt(interrupted) => {
                let reason = target.interrupt();
                interrupted.interrupt_handled(target, Some(reason)).map_err(protocol)?
            }
            GdbStubStateMachine::Disconnected(disconnected) => {
                return Ok(disconnected.get_reason());
            }
        };
    }
}

/// Why a conversation ends without its last word.
#[derive(Debug, Error)]
enum SessionError {
    #[error("the connection: {0}")]
    Connection(#[from] io::Error),
    #[error("the protocol: {0}")]
    Protocol(String),
}

fn protocol(error: impl std::fmt::Display) -> SessionError {
    SessionError::Protocol(error.to_string())
}

/// A debugger's connection.
struct Client {
    socket: OwnedFd,
    shared: Arc<Shared>,
    /// To be sent.
    output: Vec<u8>,
}

impl Client {
    /// Waits for bytes, or until the bell is rung.
    ///
    /// # Errors
    ///
    /// The debugger is gone.
    fn receive(&self, input: &mut VecDeque<u8>) -> io::Result<()> {
        if !self.shared.wait(&self.socket, PollFlags::IN) {
            return Ok(());
        }
        let mut chunk = [0; CHUNK];
        match rustix::io::read(&self.socket, &mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                input.extend(&chunk[..length]);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Bytes that wait for the debugger at most, but for one piece of an answer.
const MOST_OUTPUT: usize = 1 << 16;

impl Connection for Client {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.write_all(&[byte])
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.extend_from_slice(bytes);
        // An answer can be as long as the debugger asks for.
        if self.output.len() > MOST_OUTPUT { self.flush() } else { Ok(()) }
    }

    /// Waits for a debugger that does not read, as long as there is a machine.
    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match rustix::io::write(&self.socket, &self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.shared.ends() => {
                    self.shared.wait(&self.socket, PollFlags::OUT);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
