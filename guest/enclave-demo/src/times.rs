//! How long it takes to compute in an enclave, and to get in and out.
//!
//! Prints lines as those of guest/bench: `bench NAME NANOSECONDS CHECKSUM`, the checksum of what is done
//! several times being how often.

use std::hint::black_box;
use std::time::Instant;

use crate::driver::{Attributes, Enclave};
use crate::ensure;
use crate::image::Image;
use crate::thread::{OP_COMPRESS, OP_FAULT, OP_FAULTS, OP_LOAD, Request, Thread};
use crate::vdso::{EENTER, EEXIT, ERESUME};

/// Blocks of SHA-256 that are compressed inside and outside.
const HASHES: u64 = 200_000;
/// Times that the enclave is entered and left.
const ENTRIES: u64 = 20_000;
/// Faults in the enclave.
const FAULTS: u64 = 5_000;
/// Runs of each, of which the best counts.
const RUNS: u32 = 5;

pub(crate) fn run(image: &Image) -> Result<(), String> {
    let enclave = Enclave::build(image, Attributes::PLAIN)?;
    let thread = Thread::new(&enclave, 0)?;
    measure("hashes-inside", || Ok(thread.call(OP_COMPRESS, HASHES, 0)?.result))?;
    measure("hashes-outside", || Ok(guest_sha256::compress_repeatedly(black_box(HASHES))))?;
    measure("EENTER+EEXIT", || {
        thread.enter_and_leave(ENTRIES);
        Ok(ENTRIES)
    })?;
    measure("call", || {
        (0..ENTRIES).try_for_each(|_| thread.call(OP_LOAD, 0, 0).map(drop))?;
        Ok(ENTRIES)
    })?;
    measure("fault-and-handler", || faults(&thread))
}

/// Faults in the enclave: an AEX, the kernel's exception and its way to the vDSO's caller, EENTER and EEXIT
/// for the enclave's handler, and ERESUME each.
fn faults(thread: &Thread<'_>) -> Result<u64, String> {
    let mut request = Request::new(OP_FAULTS, FAULTS, 0);
    let mut run = thread.enter(EENTER, &mut request)?;
    while run.function != EEXIT {
        let handled = thread.call(OP_FAULT, 0, 0)?.result;
        ensure(handled == 1, "the enclave's exception handler did not know the fault")?;
        run = thread.enter(ERESUME, &mut request)?;
    }
    ensure(request.result == FAULTS, "not all faults were handled")?;
    Ok(FAULTS)
}

fn measure(name: &str, mut body: impl FnMut() -> Result<u64, String>) -> Result<(), String> {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        let checksum = body()?;
        runs.push((start.elapsed().as_nanos(), checksum));
    }
    let (best, checksum) = runs.into_iter().min().unwrap_or_default();
    println!("bench {name} {best} {checksum:#x}");
    Ok(())
}
