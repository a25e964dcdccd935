//! Signals that end the process in an orderly way.

#![expect(unsafe_code, reason = "the handlers that a process has are told and set by pointers")]

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, c_int, c_void, siginfo_t};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};
use vmm_sys_util::signal::{register_signal_handler, unblock_signal};

use crate::sandbox::{Sandbox, ThreadKind};

/// What a shell adds to the number of the signal that ended a program.
pub const SIGNALLED: c_int = 128;

const SIGNALS: [c_int; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

static EVENT: OnceLock<EventFd> = OnceLock::new();
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Takes stop signals that whoever started the process has blocked: they would never end it. To be called
/// before the process starts a thread.
///
/// # Errors
///
/// The host refuses it.
pub fn take_stop_signals() -> io::Result<()> {
    SIGNALS.into_iter().try_for_each(|signal| {
        unblock_signal(signal).map_err(|error| io::Error::other(error.to_string()))
    })
}

/// Keeps stop signals from ending the process at once: they wait for [`on_stop_signal`]. To be called
/// before the process makes a file that goes with it.
///
/// # Errors
///
/// The host gives no event or handler.
pub fn hold_stop_signals() -> io::Result<()> {
    if EVENT.get().is_some() {
        return Ok(());
    }
    // Err: another thread was faster.
    let _ = EVENT.set(EventFd::new(EFD_CLOEXEC)?);
    let ignored = ignored_signals();
    for signal in SIGNALS {
        if signal == SIGHUP && ignored & 1 << (SIGHUP - 1) != 0 {
            // Whoever started the process, such as nohup, wants it to survive the terminal.
            continue;
        }
        take_note_of(signal)?;
    }
    Ok(())
}

fn take_note_of(signal: c_int) -> io::Result<()> {
    register_signal_handler(signal, note)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// A time in which stop signals are noted and end nothing. Afterwards they do what they did before.
#[derive(Debug)]
pub(crate) struct Noted(Vec<(c_int, libc::sigaction)>);

impl Noted {
    /// Begins it. What the process ignores stays ignored.
    ///
    /// # Errors
    ///
    /// The host gives no handler.
    pub(crate) fn begin() -> io::Result<Self> {
        let ignored = ignored_signals();
        let mut noted = Self(Vec::new());
        for signal in SIGNALS.into_iter().filter(|signal| ignored & 1 << (signal - 1) == 0) {
            // SAFETY: all zeros are a value of this structure.
            let mut before = unsafe { std::mem::zeroed() };
            // SAFETY: the one pointer is to a structure of this function's.
            if unsafe { libc::sigaction(signal, ptr::null(), &raw mut before) } != 0 {
                return Err(io::Error::last_os_error());
            }
            take_note_of(signal)?;
            noted.0.push((signal, before));
        }
        Ok(noted)
    }

    /// The last signal that came.
    pub(crate) fn signal() -> Option<c_int> {
        Some(RECEIVED.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        for (signal, before) in &self.0 {
            // SAFETY: the handler is the one that the process had, and the pointer is to a structure that lives.
            unsafe { libc::sigaction(*signal, before, ptr::null_mut()) };
        }
    }
}

/// The signals that the process ignores: signal N is bit N - 1; none where the host does not tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Calls `stop` with the signal's number, on a thread of its own, when a stop signal arrives, or at
/// once if one was held.
///
/// # Errors
///
/// The host gives no event, handler or thread.
pub fn on_stop_signal(sandbox: Sandbox, stop: impl Fn(i32) + Send + 'static) -> io::Result<()> {
    hold_stop_signals()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        sandbox.confine(ThreadKind::Signals);
        while let Some(Ok(_)) = EVENT.get().map(EventFd::read) {
            stop(RECEIVED.load(Ordering::SeqCst));
        }
    })?;
    Ok(())
}

/// Does nothing but an atomic store and a write: all that a signal handler may.
extern "C" fn note(signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    RECEIVED.store(signal, Ordering::SeqCst);
    if let Some(event) = EVENT.get() {
        // It can only fail when the counter is full, and then it is readable already.
        let _ = event.write(1);
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// The signals that have handlers, as for [`ignored_signals`].
    fn caught() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }

    #[test]
    fn a_signal_is_noted_and_the_next_ends_the_process_again() {
        let before = caught();
        let noted = Noted::begin().unwrap();

        kill_process(getpid(), Signal::QUIT).unwrap();
        while Noted::signal().is_none() {
            thread::yield_now();
        }

        assert_eq!(Noted::signal(), Some(SIGQUIT));
        assert_ne!(caught(), before);
        drop(noted);
        assert_eq!(caught(), before);
    }
}
