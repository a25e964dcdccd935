//! Signals that end the process in an orderly way.

use std::io;
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
        register_signal_handler(signal, note)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    }
    Ok(())
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
