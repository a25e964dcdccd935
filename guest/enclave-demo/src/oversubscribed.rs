//! More enclave memory than there is EPC, gone through by several threads at once.

use std::thread;
use std::time::Instant;

use crate::driver::{Attributes, Enclave};
use crate::ensure;
use crate::image::{Image, PAGE};
use crate::thread::{OP_GROW, OP_SWEEP, THREADS, Thread};

/// Sweeps through all pages unless told otherwise.
pub(crate) const SWEEPS: u64 = 2;
/// Offset in ELRANGE of the pages that the enclave grows by; guest/enclave/src/heap.rs says the same.
const HEAP: u64 = 0x10_0000;
/// Pages in a MiB.
const MIB: u64 = 256;

/// A thread's pages: of which enclave, from which offset on, how many.
#[derive(Clone, Copy)]
struct Share {
    thread: u64,
    start: u64,
    pages: u64,
}

/// Grows enclaves of `mib` MiB together, and goes through their pages with `threads` threads.
pub(crate) fn run(image: &Image, mib: u64, threads: u64, sweeps: u64) -> Result<(), String> {
    ensure(threads != 0, "without a thread nothing works")?;
    let pages = mib * MIB / threads;
    let room = (image.size - HEAP) / PAGE as u64 / THREADS;
    ensure(pages <= room, &format!("a thread has room for {} MiB", room / MIB))?;
    let enclaves = (0..threads.div_ceil(THREADS))
        .map(|_| {
            let enclave = Enclave::build(image, Attributes::PLAIN)?;
            enclave.map_heap(HEAP, image.size - HEAP)?;
            Ok(enclave)
        })
        .collect::<Result<Vec<_>, String>>()?;
    let start = Instant::now();
    thread::scope(|scope| {
        let work: Vec<_> = (0..threads)
            .map(|number| {
                let enclave = &enclaves[(number / THREADS) as usize];
                let thread = number % THREADS;
                let start = HEAP + thread * pages * PAGE as u64;
                scope.spawn(move || work(enclave, Share { thread, start, pages }, sweeps))
            })
            .collect();
        work.into_iter()
            .try_for_each(|handle| handle.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    println!(
        "enclave-demo: {} pages of enclaves in {threads} threads, {sweeps} sweeps: {} ms",
        pages * threads,
        start.elapsed().as_millis()
    );
    Ok(())
}

fn work(enclave: &Enclave, share: Share, sweeps: u64) -> Result<(), String> {
    let thread = Thread::new(enclave, share.thread)?;
    let grown = thread.call(OP_GROW, share.start, share.pages)?.result;
    ensure(grown == share.pages, &format!("EACCEPT gave {grown:#x}"))?;
    for sweep in 1..=sweeps {
        let kept = thread.call(OP_SWEEP, share.start + sweep, share.pages)?.result;
        let lost = format!("of {} pages {kept} are as they were left", share.pages);
        ensure(kept == share.pages, &lost)?;
    }
    Ok(())
}
