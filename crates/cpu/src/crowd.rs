//! Processors of a machine that have to share the host's cores.
//!
//! A guest's processor that waits for another one (for a lock, or for the answer to an interrupt)
//! spins, and takes PAUSE to be the way to say so. If the thread of the other one does not run at
//! that moment, spinning keeps it from running. So a PAUSE yields now and then.
//!
//! An enclave whose page is not there while its kernel has no EPC to load it faults again and again
//! at the same place (Linux returns from the fault and lets its reclaimer work meanwhile). That is
//! waiting, too, and costs far more than a PAUSE: thousands of the kernel's instructions, under the
//! lock that the reclaimer needs. Where a machine has more processors than the host has cores, such
//! a fault is held back for a while; interrupts are taken meanwhile.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::kicker::Kicker;

/// PAUSEs that only spin, before one that yields: about as long as a short critical section.
const SPINS: u32 = 32;
/// How long the first repetition of a fault is held back: about as long as Linux takes to write
/// back the 16 pages that its reclaimer takes at a time.
const HOLD: Duration = Duration::from_millis(1);
/// Each following one is held back twice as long as the one before, so often.
const DOUBLINGS: u32 = 3;

/// How a processor has waited lately.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// PAUSEs since the last one that yielded.
    pauses: u32,
    /// Where an enclave faulted last: RIP and linear address.
    fault: (u64, u64),
    /// How often it has faulted there again, up to [`DOUBLINGS`].
    repeats: u32,
    /// Until when the fault there is held back.
    until: Option<Instant>,
}

/// What the processors of a machine know of the room that they have.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// Whether there are more of them than cores.
    crowded: bool,
}

impl Crowd {
    /// `cpus` processors on this host.
    pub(crate) fn new(cpus: usize) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { crowded: cpus > cores }
    }

    /// A PAUSE. Yields also where there is a core for each processor: the host may have other work.
    #[inline]
    pub(crate) fn pause(&self, patience: &mut Patience) {
        patience.pauses += 1;
        if patience.pauses == SPINS {
            patience.pauses = 0;
            thread::yield_now();
        }
    }

    /// Holds back an enclave's #PF at `rip` for `address` if its last one was the same. Returns
    /// whether an event for the processor came first: the instruction is to run again after that.
    pub(crate) fn holds_back(
        &self,
        patience: &mut Patience,
        kicker: &Kicker,
        rip: u64,
        address: u64,
    ) -> bool {
        if std::mem::replace(&mut patience.fault, (rip, address)) != (rip, address) {
            (patience.repeats, patience.until) = (0, None);
            return false;
        }
        if !self.crowded {
            return false;
        }
        let now = Instant::now();
        let until = *patience.until.get_or_insert(now + HOLD * (1 << patience.repeats));
        kicker.sleep(Some(until.saturating_duration_since(now)));
        if kicker.events.load(Ordering::Relaxed) != 0 {
            return true;
        }
        (patience.repeats, patience.until) = ((patience.repeats + 1).min(DOUBLINGS), None);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kicker::event;

    const PLACE: (u64, u64) = (0x1000, 0x2000);

    /// Faults at `place`: whether an event came first, and how long it was held back.
    fn fault(
        crowd: &Crowd,
        patience: &mut Patience,
        kicker: &Kicker,
        place: (u64, u64),
    ) -> (bool, Duration) {
        let start = Instant::now();
        let event = crowd.holds_back(patience, kicker, place.0, place.1);
        (event, start.elapsed())
    }

    #[test]
    fn a_fault_is_held_back_when_it_is_the_last_one_again_and_longer_each_time() {
        let (crowd, kicker) = (Crowd { crowded: true }, Kicker::default());
        let mut patience = Patience::default();
        let mut hold = |place| {
            let (event, held) = fault(&crowd, &mut patience, &kicker, place);
            assert!(!event);
            (held, patience.repeats)
        };

        assert_eq!(hold(PLACE).1, 0);
        let (first, second) = (hold(PLACE), hold(PLACE));
        assert!(first.0 >= HOLD && second.0 >= 2 * HOLD, "{first:?} {second:?}");
        assert_eq!((first.1, second.1), (1, 2));
        assert_eq!(hold((PLACE.0, 0x3000)).1, 0);
        assert_eq!(hold(PLACE).1, 0);
        for _ in 0..4 {
            hold(PLACE);
        }
        assert_eq!(patience.repeats, DOUBLINGS);
    }

    #[test]
    fn an_event_comes_first_and_does_not_prolong_the_wait() {
        let (crowd, kicker) = (Crowd { crowded: true }, Kicker::default());
        let mut patience = Patience::default();
        fault(&crowd, &mut patience, &kicker, PLACE);
        kicker.post(event::APIC);

        let (event, _) = fault(&crowd, &mut patience, &kicker, PLACE);
        let until = patience.until;
        assert!(event && until.is_some());

        kicker.events.store(0, Ordering::SeqCst);
        assert!(!fault(&crowd, &mut patience, &kicker, PLACE).0);
        assert!(until.unwrap() <= Instant::now());
    }

    #[test]
    fn no_fault_is_held_back_where_each_processor_has_a_core() {
        let (crowd, kicker) = (Crowd::new(1), Kicker::default());
        let mut patience = Patience::default();
        // Were one held back, the event would be said to come first.
        kicker.post(event::APIC);

        for _ in 0..3 {
            assert!(!fault(&crowd, &mut patience, &kicker, PLACE).0);
        }
        assert!(Crowd::new(100_000).crowded);
    }
}
