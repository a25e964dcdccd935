//! A thread that did what it may not: a line that says so, and the end.
#![expect(unsafe_code, reason = "reads what the kernel tells a signal handler")]

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;

use libc::{SIGSYS, c_int, c_void, siginfo_t};
use vmm_sys_util::signal::register_signal_handler;

use super::{ThreadKind, turn_off};
use crate::complaint::Wording;
use crate::terminal::{self, SIGNALLED};

thread_local! {
    static THREAD: Cell<&'static str> = const { Cell::new("unknown") };
}

/// Says what the calling thread is called in the report.
pub(super) fn name_thread(kind: ThreadKind) {
    THREAD.set(kind.name());
}

/// What the report says of the way to do without the sandbox.
static TURN_OFF: OnceLock<String> = OnceLock::new();

/// From now on SIGSYS, which a filter raises, is reported and ends the process. `wording` says how the
/// sandbox is turned off.
pub(super) fn report_and_end(wording: &dyn Wording) -> io::Result<()> {
    // Made here: a signal handler may not allocate.
    TURN_OFF.get_or_init(|| turn_off().in_words_of(wording));
    register_signal_handler(SIGSYS, report)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// Does nothing but what a signal handler may: it formats on its stack, writes and ends.
extern "C" fn report(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    /// Words of siginfo_t before `_sigsys._syscall` (include/uapi/asm-generic/siginfo.h): three of
    /// its head, one of padding on 64-bit hosts, and the pointer `_call_addr`.
    const SYSCALL: usize = 6;
    // SAFETY: the kernel passes a siginfo_t of 128 bytes, and the handler is for SIGSYS alone.
    let call = unsafe { info.cast::<u32>().add(SYSCALL).read() };
    terminal::restore_from_signal();
    let mut digits = [0; 10];
    // Not for long: a standard error that nobody reads does not hold the end up.
    let limit = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    for part in [
        "cloister: the sandbox stopped a thread (",
        THREAD.get(),
        ") at system call ",
        decimal(call, &mut digits),
        ": report it, and ",
        TURN_OFF.get().map_or("run it without the sandbox", String::as_str),
        " until it is fixed\n",
    ] {
        // SAFETY: the kernel reads and writes one structure of its own type each, and no mask.
        let taken = unsafe { libc::ppoll(&raw mut stderr, 1, &raw const limit, std::ptr::null()) };
        if taken != 1 {
            break;
        }
        // SAFETY: the bytes are a string's.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: _exit takes an integer, and runs nothing of this process.
    unsafe { libc::_exit(SIGNALLED + SIGSYS) }
}

/// The digits of a number, without allocation.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &str {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    str::from_utf8(&digits[first..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 257, u32::MAX] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string());
        }
    }
}
