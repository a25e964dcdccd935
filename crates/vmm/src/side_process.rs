//! Processes beside the machine's: what a confined process may not do, such as to reach a file by its name,
//! another does for it, that has neither the guest's memory nor the machine's files.

#![expect(unsafe_code, reason = "forks while there is one thread")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, c_int, c_void, siginfo_t};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::chdir;
use rustix::thread::set_name;
use vmm_sys_util::signal::register_signal_handler;

use crate::daemon::{Fork, fork};
use crate::sandbox::close_all_but;

/// Starts a process of this name that does what `serve` does with its end of a pair of sockets of this kind,
/// and returns the other end. The process ends with `serve`, which ends when the other end is
/// closed. Of the open files it keeps those of `kept`.
///
/// # Errors
///
/// The host gives no sockets or no process.
///
/// # Safety
///
/// The process has one thread, as for [`crate::daemon::detach`].
pub(crate) unsafe fn start(
    name: &CStr,
    kind: SocketType,
    kept: &[RawFd],
    serve: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let (own, other) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    // SAFETY: the caller says that there is one thread.
    match unsafe { fork() }? {
        Fork::Parent => Ok(own),
        Fork::Child(child) => {
            // Closed below with all others.
            std::mem::forget(own);
            // Nobody is left to tell: the machine finds its end closed.
            let _ =
                prepare(name, &[kept, &[other.as_raw_fd()]].concat()).and_then(|()| serve(&other));
            child.end()
        }
    }
}

/// Makes the process, just forked, one beside the machine's: of this name, with the open files `kept` and no
/// folder.
///
/// # Errors
///
/// What the host says.
pub(crate) fn prepare(name: &CStr, kept: &[RawFd]) -> io::Result<()> {
    // What ends the machine from the keyboard goes to its whole group. This process ends after it.
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        register_signal_handler(signal, ignore)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    }
    close_all_but(kept)?;
    set_name(name)?;
    Ok(chdir("/")?)
}

extern "C" fn ignore(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {}
