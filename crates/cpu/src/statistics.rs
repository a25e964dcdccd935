//! What a processor's translator has done, for whoever looks from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

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

impl Counts {
    const fn all(&self) -> [u64; 8] {
        let Self { blocks, instructions, guest_bytes, code_bytes, nanoseconds, evictions, .. } =
            *self;
        let Self { entries, interpreted_runs, .. } = *self;
        [
            blocks,
            instructions,
            guest_bytes,
            code_bytes,
            nanoseconds,
            evictions,
            entries,
            interpreted_runs,
        ]
    }

    const fn of(all: [u64; 8]) -> Self {
        let [blocks, instructions, guest_bytes, code_bytes, nanoseconds, evictions, ..] = all;
        let [.., entries, interpreted_runs] = all;
        Self {
            blocks,
            instructions,
            guest_bytes,
            code_bytes,
            nanoseconds,
            evictions,
            entries,
            interpreted_runs,
        }
    }
}

/// The counts of a processor as it published them last. Each is one that was true, at about one time.
#[derive(Debug, Default)]
pub struct Statistics([AtomicU64; 8]);

impl Statistics {
    /// The counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(std::array::from_fn(|n| self.0[n].load(Ordering::Relaxed)))
    }

    pub(crate) fn publish(&self, counts: &Counts) {
        for (place, count) in self.0.iter().zip(counts.all()) {
            place.store(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Statistics};

    #[test]
    fn each_count_is_read_as_what_it_was_published_as() {
        let counts = Counts::of([1, 2, 3, 4, 5, 6, 7, 8]);
        let statistics = Statistics::default();

        statistics.publish(&counts);

        assert_eq!(statistics.counts(), counts);
        assert_eq!((counts.blocks, counts.evictions, counts.interpreted_runs), (1, 6, 8));
    }
}
