//! What a processor's translator has done, for whoever looks from another thread.

use std::sync::{Mutex, PoisonError};

/// Counts since the processor's reset. Of entries and runs, those up to its last look at events or exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Blocks translated, again after an eviction.
    pub blocks: u64,
    /// Guest instructions in these.
    pub instructions: u64,
    /// Bytes of these instructions.
    pub guest_bytes: u64,
    /// Bytes of host code made of them.
    pub code_bytes: u64,
    /// Nanoseconds that it took.
    pub nanoseconds: u64,
    /// How often all code was dropped to make room.
    pub evictions: u64,
    /// How often translated code was entered, in which blocks go on to each other.
    pub entries: u64,
    /// Blocks that ran interpreted.
    pub interpreted_runs: u64,
}

/// The counts of a processor as it published them last.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Counts>);

impl Statistics {
    /// The counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes counts; not while somebody reads, whom the processor does not wait for.
    pub(crate) fn publish(&self, counts: &Counts) {
        if let Ok(mut shown) = self.0.try_lock() {
            *shown = *counts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Statistics};

    #[test]
    fn each_count_is_read_as_what_it_was_published_as() {
        let counts = Counts {
            blocks: 1,
            instructions: 2,
            guest_bytes: 3,
            code_bytes: 4,
            nanoseconds: 5,
            evictions: 6,
            entries: 7,
            interpreted_runs: 8,
        };
        let statistics = Statistics::default();

        statistics.publish(&counts);

        assert_eq!(statistics.counts(), counts);
    }
}
