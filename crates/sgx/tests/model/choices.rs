//! Where a test's random decisions come from: a seed, or the bytes that a fuzzer made.

/// A source of decisions.
pub(crate) enum Choices<'a> {
    /// Generated from this state (SplitMix64), without end.
    Seed(u64),
    /// Taken from these bytes; zeros once they are used up.
    Bytes(&'a [u8]),
}

impl Choices<'_> {
    /// Whether the bytes are used up.
    pub(crate) fn ended(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    /// A number of `bytes` bytes, at most 8.
    fn number(&mut self, bytes: usize) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ mixed >> 31
            }
            Self::Bytes(rest) => {
                let (taken, left) = rest.split_at(bytes.min(rest.len()));
                *rest = left;
                taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
            }
        }
    }

    /// Any 64-bit number.
    pub(crate) fn word(&mut self) -> u64 {
        self.number(8)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let bytes = if limit <= 256 { 1 } else { 4 };
        (self.number(bytes) % limit as u64) as usize
    }

    /// True once in `times` times. False once the bytes are used up.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// One of `all`, if there is any.
    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len())]) }
    }

    /// Changes some bytes of `target`: up to eight, each at a place of its own.
    pub(crate) fn spoil(&mut self, target: &mut [u8]) {
        for _ in 0..self.below(9) {
            let place = self.below(target.len());
            target[place] = match self.below(4) {
                0 => target[place] ^ 1 << self.below(8),
                1 => 0,
                2 => 0xff,
                _ => self.below(256) as u8,
            };
        }
    }
}
