//! A process that goes on without its terminal, as QEMU's `-daemonize`.
//!
//! The process that was started waits until the machine is ready, so that it can end with 1 when it
//! will never be. Messages go to its standard error until then.

#![expect(unsafe_code, reason = "fork and _exit have no safe wrapper")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read as _, Write as _, pipe};

use rustix::fs::Mode;
use rustix::process::{chdir, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::set_name;

/// Which process goes on.
#[derive(Debug)]
pub enum Side {
    /// The one that was started, after the other is ready or has failed.
    Started {
        /// The machine is ready to run.
        ready: bool,
    },
    /// The one behind it.
    Daemon(Daemon),
}

/// A daemon that is not ready yet.
#[derive(Debug)]
pub struct Daemon {
    starter: PipeWriter,
    /// What standard input and outputs become. Open already, since a machine opens nothing.
    null: File,
}

/// Goes on in a new process that has no terminal and is nobody's child.
///
/// Must be called before the process starts a thread: a thread that is not this one would not exist
/// in the new process, and what it had locked would stay locked.
///
/// # Errors
///
/// The host gives no pipe or no process, or has no `/dev/null`.
pub fn detach() -> io::Result<Side> {
    let (daemon, starter) = pipe()?;
    let Fork::Child(child) = fork()? else {
        drop(starter);
        return Ok(Side::Started { ready: was_ready(daemon) });
    };
    drop(daemon);
    setsid()?;
    // The leader of a session could get a terminal again; its child cannot.
    if let Fork::Parent = fork()? {
        child.end();
    }
    umask(Mode::WGRP | Mode::RWXO);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    Ok(Side::Daemon(Daemon { starter, null }))
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

/// Makes a copy of the process, which has one thread by the contract of the callers.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: with one thread, the child finds every lock free and may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child(Child(()))),
        _ => Ok(Fork::Parent),
    }
}

/// Whether the daemon said that it is ready before it ended.
fn was_ready(mut daemon: PipeReader) -> bool {
    let mut byte = [0];
    loop {
        match daemon.read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return matches!(read, Ok(1)),
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

    /// Leaves the terminal, and lets the process that was started end well.
    ///
    /// # Errors
    ///
    /// The host refuses it.
    pub fn ready(mut self) -> io::Result<()> {
        dup2_stdin(&self.null)?;
        dup2_stdout(&self.null)?;
        dup2_stderr(&self.null)?;
        // It may have been ended meanwhile.
        let _ = self.starter.write_all(&[0]);
        Ok(())
    }
}
