//! Processors of a machine that have to share the host's cores.
//!
//! A guest's processor that waits for another one (for a lock, or for the answer to an interrupt)
//! spins, and takes PAUSE to be the way to say so. If the thread of the other one does not run at
//! that moment, spinning keeps it from running. So a PAUSE yields now and then; and since those that
//! work do not yield by themselves, the host would let them use up their time slices before the one
//! that is waited for gets its turn. Where a machine has more processors than the host has cores,
//! one that waits therefore asks the others to yield once, too.
//!
//! An enclave whose page is not there while its kernel has no EPC to load it faults again and again
//! at the same place (Linux returns from the fault and lets its reclaimer work meanwhile): that is
//! waiting, too.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// PAUSEs that only spin, before one that yields: about as long as a short critical section.
const SPINS: u32 = 32;

/// What the processors of a machine know of the room that they have.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// How often processors are to yield because one waits: none where there is a core for each.
    turns: AtomicU32,
    /// Turns that one that waits asks for.
    asked: u32,
}

impl Crowd {
    /// `cpus` processors on this host.
    pub(crate) fn new(cpus: usize) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let asked = if cpus > cores { cpus as u32 } else { 0 };
        Self { turns: AtomicU32::new(0), asked }
    }

    /// A PAUSE; `count` counts those of the processor.
    #[inline]
    pub(crate) fn pause(&self, count: &mut u32) {
        *count += 1;
        if *count == SPINS {
            *count = 0;
            self.wait();
        }
    }

    /// A processor waits for another one, and not just now.
    #[cold]
    pub(crate) fn wait(&self) {
        if self.asked != 0 {
            self.turns.store(self.asked, Ordering::Relaxed);
        }
        thread::yield_now();
    }

    /// A processor that works has come to where it can yield.
    #[inline]
    pub(crate) fn pass(&self) {
        if self.turns.load(Ordering::Relaxed) != 0 {
            self.take_turn();
        }
    }

    #[cold]
    fn take_turn(&self) {
        let one_less = |turns: u32| turns.checked_sub(1);
        if self.turns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(crowd: &Crowd) -> u32 {
        crowd.turns.load(Ordering::Relaxed)
    }

    #[test]
    fn one_that_waits_long_asks_each_of_a_crowd_for_a_turn() {
        let crowd = Crowd::new(100_000);
        let mut count = 0;
        let mut short = || crowd.pause(&mut count);
        (1..SPINS).for_each(|_| short());
        assert_eq!(turns(&crowd), 0);

        short();
        let asked = turns(&crowd);
        crowd.pass();

        assert_eq!((asked, turns(&crowd)), (100_000, 99_999));
    }

    #[test]
    fn who_has_a_core_is_asked_for_nothing() {
        let crowd = Crowd::new(1);
        let mut count = 0;

        (0..10 * SPINS).for_each(|_| crowd.pause(&mut count));

        assert_eq!(turns(&crowd), 0);
    }
}
