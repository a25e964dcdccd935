//! A process that goes on without its terminal, as QEMU's `-daemonize`.
//!
//! The process that was started waits until the machine is ready, so that it can end with 1 when it
//! will never be. Messages go to its standard error until then.

#![expect(unsafe_code, reason = "fork and _exit have no safe wrapper")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read as _, Write as _, pipe};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::process::{chdir, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::set_name;

/// Which process goes on.
#[derive(Debug)]
pub enum Side {
    /// The one that was started, and the machine is ready to run.
    Ready,
    /// The one that was started. The other has failed, and says why.
    Failed,
    /// The one that was started. The other was ended from outside, and could say nothing.
    Ended,
    /// The one that goes on after it.
    Daemon(Daemon),
}

/// What a daemon says, in a byte, to the process that was started.
const READY: u8 = 0;
const FAILED: u8 = 1;

/// A daemon that is not ready yet. One that is dropped has failed.
#[derive(Debug)]
pub struct Daemon {
    starter: PipeWriter,
    /// What standard input and outputs become. Open already, since a machine opens nothing.
    null: File,
}

/// Goes on in a new process that has no terminal and is nobody's child.
///
/// # Errors
///
/// The host gives no pipe or no process, or has no `/dev/null`.
///
/// # Safety
///
/// The process has one thread. Another would not exist in the new process, and what it had locked
/// would stay locked there.
pub unsafe fn detach() -> io::Result<Side> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let (word, starter) = pipe()?;
    // SAFETY: the caller says that there is one thread.
    let Fork::Child(child) = (unsafe { fork() })? else {
        drop(starter);
        return Ok(await_word(word));
    };
    drop(word);
    let daemon = Daemon { starter, null };
    setsid()?;
    // The leader of a session could get a terminal again; its child cannot.
    // SAFETY: the process is a copy that has one thread.
    if let Fork::Parent = unsafe { fork() }? {
        child.end();
    }
    umask(Mode::WGRP | Mode::RWXO);
    Ok(Side::Daemon(daemon))
}

/// Gives the process a name for `ps` and `top`, which show its first 15 bytes.
///
/// # Errors
///
/// The name has a zero byte.
pub fn name_process(name: &str) -> io::Result<()> {
    Ok(set_name(&CString::new(name)?)?)
}

/// Which process this is.
pub(crate) enum Fork {
    Parent,
    Child(Child),
}

/// A process that is a copy of the one that was started.
pub(crate) struct Child(());

impl Child {
    /// Ends the process without what is for the one that goes on: destructors and handlers.
    pub(crate) fn end(self) -> ! {
        // SAFETY: it ends this process, which owns nothing but copies of descriptors.
        unsafe { libc::_exit(0) }
    }
}

/// Makes a copy of the process.
///
/// # Safety
///
/// The process has one thread.
pub(crate) unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: the caller says that there is one thread: the child finds every lock free and may do
    // anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child(Child(()))),
        _ => Ok(Fork::Parent),
    }
}

/// What the daemon says before it ends or goes on.
fn await_word(mut word: PipeReader) -> Side {
    let mut byte = [0];
    loop {
        match word.read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(1) if byte == [READY] => return Side::Ready,
            Ok(1) => return Side::Failed,
            _ => return Side::Ended,
        }
    }
}

impl Daemon {
    /// Leaves the directory, once every file is open.
    ///
    /// # Errors
    ///
    /// The host refuses it.
    pub fn leave_directory(&self) -> io::Result<()> {
        Ok(chdir("/")?)
    }

    /// Whether the process that was started has ended, so that nobody waits for this one.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        // A pipe that nobody can read any more is an error, which needs no asking for.
        let mut starter = [PollFd::new(&self.starter, PollFlags::empty())];
        matches!(poll(&mut starter, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
    }

    /// Lets the process that was started end well, and keeps the standard streams.
    ///
    /// # Errors
    ///
    /// The process that was started has ended.
    pub fn ready_with_streams(mut self) -> io::Result<()> {
        self.starter.write_all(&[READY])
    }

    /// Leaves the terminal, and lets the process that was started end well.
    ///
    /// # Errors
    ///
    /// The host refuses it, or the process that was started has ended.
    pub fn ready(mut self) -> io::Result<()> {
        dup2_stdin(&self.null)?;
        dup2_stdout(&self.null)?;
        dup2_stderr(&self.null)?;
        self.starter.write_all(&[READY])
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nobody reads on after the word that it is ready.
        let _ = self.starter.write_all(&[FAILED]);
    }
}
