//! Random choices of tests, the same in each run.

/// Numbers that look random and follow from a seed (xorshift64).
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Those of `seed`, which is not 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        assert!(seed != 0, "xorshift stays at 0");
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    ///
    /// # Panics
    ///
    /// If `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let drawn = self.draw() % choices.len() as u64;
        choices[usize::try_from(drawn).unwrap_or_default()]
    }
}
