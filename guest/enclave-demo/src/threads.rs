//! All threads in the enclave at once, each on a processor of its own.
#![expect(unsafe_code, reason = "sched_setaffinity takes a raw set")]

use std::io::Error;
use std::mem;
use std::thread;

use crate::driver::{Attributes, Enclave};
use crate::image::Image;
use crate::thread::{OP_WORK, THREADS, Thread};
use crate::{ensure, hex};

/// AEXs that each thread works through unless told otherwise.
pub(crate) const EXITS: u64 = 20;

/// The enclave lets no thread leave before all have come, and each hashes until it
/// has been interrupted often enough; so as many hashes outside must give the same.
pub(crate) fn run(image: &Image, exits: u64) -> Result<(), String> {
    let enclave = &Enclave::build(image, Attributes::PLAIN)?;
    thread::scope(|scope| {
        let work: Vec<_> =
            (0..THREADS).map(|number| scope.spawn(move || work(enclave, number, exits))).collect();
        work.into_iter().try_for_each(|handle| {
            let line = handle.join().map_err(|_| "a thread panicked")??;
            println!("enclave-demo: {line}");
            Ok(())
        })
    })
}

fn work(enclave: &Enclave, number: u64, exits: u64) -> Result<String, String> {
    bind(number as usize).map_err(|error| format!("cannot bind to CPU {number}: {error}"))?;
    let request = Thread::new(enclave, number)?.call(OP_WORK, THREADS, exits)?;
    let mut digest = guest_sha256::digest(&number.to_le_bytes());
    for _ in 1..request.result {
        digest = guest_sha256::digest(&digest);
    }
    let inside = &request.output[..digest.len()];
    let line = format!("thread {number} through {exits} AEXs: {}", hex(inside));
    ensure(inside == digest, &format!("{line}, but outside {}", hex(&digest)))?;
    Ok(line + ", as outside")
}

/// Binds the calling thread to a CPU.
fn bind(cpu: usize) -> Result<(), Error> {
    // SAFETY: a set of zeros is an empty set, and `cpu` is far below its size; the
    // kernel reads it for the calling thread only.
    let status = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if status == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
