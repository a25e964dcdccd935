//! Limits of what the process may leave on the host.

use std::io;

use libc::{SIGXFSZ, c_int, c_void, siginfo_t};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_sys_util::signal::register_signal_handler;

/// What a guest may have written into consoles and logs beyond the sizes of files that are there.
const GROWTH: u64 = 1 << 30;

/// Forbids core dumps, which would have the guest's memory and the platform's keys in them, and files
/// that grow more than 1 GiB beyond `largest`, the size of the largest file that is open. As many files may be
/// open as the host allows: a guest has streams of its own opened, more than the usual limit, which is for
/// programs that use select(2), and who connects then would not be heard.
pub(super) fn set(largest: u64) -> io::Result<()> {
    // Writing past the limit then fails, and ends nothing.
    register_signal_handler(SIGXFSZ, ignore)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    forbid_dumps()?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let size = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    set_for_good(Resource::Fsize, size.min(largest.saturating_add(GROWTH)))
}

/// Forbids core dumps.
pub(super) fn forbid_dumps() -> io::Result<()> {
    // Not 0, with which a dump still goes to the program of core_pattern: 1 is the kernel's word for
    // none at all (core(5), "Piping core dumps to a program").
    let core = getrlimit(Resource::Core).maximum.map_or(1, |maximum| maximum.min(1));
    set_for_good(Resource::Core, core)
}

fn set_for_good(resource: Resource, limit: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?)
}

extern "C" fn ignore(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {}
