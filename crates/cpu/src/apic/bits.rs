//! Sets of interrupt vectors.

/// A bit for each of the 256 vectors, as IRR, ISR and TMR have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VectorSet([u64; 4]);

impl VectorSet {
    pub(super) const fn contains(&self, vector: u8) -> bool {
        self.0[(vector >> 6) as usize] >> (vector & 63) & 1 != 0
    }

    pub(super) fn set(&mut self, vector: u8, on: bool) {
        let word = &mut self.0[usize::from(vector >> 6)];
        let bit = 1 << (vector & 63);
        if on {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    /// The highest vector in the set.
    pub(super) fn highest(&self) -> Option<u8> {
        (0..4u8).rev().find_map(|n| {
            let word = self.0[usize::from(n)];
            (word != 0).then(|| n * 64 + (63 - word.leading_zeros() as u8))
        })
    }

    /// Bits `32 * n` to `32 * n + 31`, as a register shows them.
    pub(super) const fn register(&self, n: usize) -> u32 {
        (self.0[n / 2] >> (n % 2 * 32)) as u32
    }

    /// Takes in 64 bits from a word with index `n`.
    pub(super) fn word_mut(&mut self, n: usize) -> &mut u64 {
        &mut self.0[n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_vector_wins_across_words() {
        let mut set = VectorSet::default();
        set.set(0x31, true);
        set.set(0xef, true);

        assert_eq!(set.highest(), Some(0xef));
        set.set(0xef, false);
        assert_eq!(set.highest(), Some(0x31));
        set.set(0x31, false);
        assert_eq!(set.highest(), None);
    }
}
