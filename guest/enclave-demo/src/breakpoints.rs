//! A debugger's breakpoint in the processor's debug registers, on a program that runs an enclave.

#![expect(unsafe_code, reason = "forks, and debugs the other process")]

use std::io::Error;
use std::mem::offset_of;
use std::ptr::null_mut;

use crate::driver::{Attributes, Enclave};
use crate::ensure;
use crate::image::Image;
use crate::thread::{OP_STORE, Thread};

/// How often the program comes to the breakpoint.
const ROUNDS: u64 = 20;
/// DR7: DR0 for instructions (SDM vol. 3B, 17.2.4).
const DR7_L0: u64 = 1;

/// Where the breakpoint is.
#[inline(never)]
extern "C" fn landmark(round: u64) {
    std::hint::black_box(round);
}

/// Starts the program, and counts how often it stops at the breakpoint.
pub(crate) fn run(image: &Image) -> Result<(), String> {
    // SAFETY: the process has one thread.
    let child = unsafe { libc::fork() };
    ensure(child >= 0, "cannot fork")?;
    if child == 0 {
        let done = debugged(image);
        if let Err(error) = &done {
            println!("enclave-demo: the program under the debugger: {error}");
        }
        std::process::exit(done.is_err().into());
    }
    ensure(stopped_by(child)? == libc::SIGSTOP, "the program did not wait")?;
    let debug_register = |n: usize| offset_of!(libc::user, u_debugreg) + n * size_of::<u64>();
    let address = landmark as extern "C" fn(u64) as usize;
    request(libc::PTRACE_POKEUSER, child, debug_register(0), address)?;
    request(libc::PTRACE_POKEUSER, child, debug_register(7), DR7_L0 as usize)?;
    let mut stops = 0;
    loop {
        request(libc::PTRACE_CONT, child, 0, 0)?;
        let mut status = 0;
        // SAFETY: the status is written.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        ensure(waited == child, "cannot wait for the program")?;
        if libc::WIFEXITED(status) {
            println!("enclave-demo: the program stopped {stops} times at the breakpoint");
            ensure(libc::WEXITSTATUS(status) == 0, "the program failed")?;
            return ensure(stops == ROUNDS, "it came there another number of times");
        }
        ensure(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP, "no SIGTRAP")?;
        stops += 1;
    }
}

/// What runs under the debugger.
fn debugged(image: &Image) -> Result<(), String> {
    request(libc::PTRACE_TRACEME, 0, 0, 0)?;
    // SAFETY: a signal to itself.
    unsafe { libc::raise(libc::SIGSTOP) };
    let enclave = Enclave::build(image, Attributes::PLAIN)?;
    let thread = Thread::new(&enclave, 0)?;
    for round in 0..ROUNDS {
        thread.call(OP_STORE, round, 0)?;
        landmark(round);
    }
    Ok(())
}

/// The signal that the program has stopped with.
fn stopped_by(child: libc::pid_t) -> Result<i32, String> {
    let mut status = 0;
    // SAFETY: the status is written.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    ensure(waited == child && libc::WIFSTOPPED(status), "the program did not stop")?;
    Ok(libc::WSTOPSIG(status))
}

fn request(
    what: libc::c_uint,
    child: libc::pid_t,
    address: usize,
    data: usize,
) -> Result<(), String> {
    // SAFETY: these requests take numbers.
    let done = unsafe { libc::ptrace(what, child, address, data, null_mut::<u8>()) };
    if done == -1 {
        return Err(format!("ptrace(2): {}", Error::last_os_error()));
    }
    Ok(())
}
