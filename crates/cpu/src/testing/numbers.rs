//! Decisions of tests: random ones, the same in each run, or those that the bytes of a fuzzer make.

use std::vec::IntoIter;

/// Numbers that look random and follow from a seed (xorshift64), or that bytes have.
#[derive(Debug)]
pub struct Numbers(Source);

#[derive(Debug)]
enum Source {
    Seed(u64),
    Bytes(IntoIter<u8>),
}

impl Numbers {
    /// Those of `seed`, which is not 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        assert!(seed != 0, "xorshift stays at 0");
        Self(Source::Seed(seed))
    }

    /// Those of `bytes`, and zeros after them.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Source::Bytes(Vec::from(bytes).into_iter()))
    }

    /// Whether the bytes are used up.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(&self.0, Source::Bytes(rest) if rest.len() == 0)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.number(8)
    }

    /// A number below `end`.
    ///
    /// # Panics
    ///
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let bytes = match end {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 8,
        };
        self.number(bytes) % end
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let chosen = self.below(choices.len() as u64);
        choices[usize::try_from(chosen).unwrap_or_default()]
    }

    /// The next number: of a seed, or of so many bytes.
    fn number(&mut self, bytes: usize) -> u64 {
        match &mut self.0 {
            Source::Seed(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state
            }
            Source::Bytes(rest) => {
                let mut number = [0; 8];
                for (byte, taken) in number.iter_mut().zip(rest.take(bytes)) {
                    *byte = taken;
                }
                u64::from_le_bytes(number)
            }
        }
    }
}
