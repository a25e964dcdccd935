//! Seeded operands that favour the corners of the formats.

use cloister_float::F80;

/// A SplitMix64 generator.
pub(super) struct Samples(pub(super) u64);

impl Samples {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// A field of `width` bits: random, sparse, a run of ones, or all the same.
    fn field(&mut self, width: u32) -> u64 {
        let mask = u64::MAX >> (64 - width);
        let bit = self.below(u64::from(width));
        let value = match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << bit,
            3 => (1 << bit) - 1,
            4 => !((1 << bit) - 1),
            5 => 1 << bit | 1 << self.below(u64::from(width)),
            _ => self.bits(),
        };
        value & mask
    }

    /// A biased exponent: anywhere, near the ends, or near the one of 1.0.
    fn exponent(&mut self, bias: u64, precision: u64) -> u64 {
        let last = 2 * bias + 1;
        match self.below(8) {
            0 => 0,
            1 => last,
            2 => self.below(precision + 4),
            3 => last - self.below(4),
            4 => self.below(last + 1),
            5 => bias - 8 + self.below(16),
            6 => bias - precision + self.below(2 * precision),
            // Products and quotients of two such values reach the ends.
            _ => bias / 2 + self.below(bias),
        }
    }

    pub(super) fn f32(&mut self) -> u32 {
        let exponent = self.exponent(127, 24) as u32;
        (self.below(2) as u32) << 31 | exponent << 23 | self.field(23) as u32
    }

    pub(super) fn f64(&mut self) -> u64 {
        self.below(2) << 63 | self.exponent(1023, 53) << 52 | self.field(52)
    }

    /// Any encoding, the unsupported ones now and then.
    pub(super) fn f80(&mut self) -> F80 {
        let exponent = self.exponent(16383, 64);
        let integer_bit = match self.below(32) {
            0 => self.below(2),
            _ => u64::from(exponent != 0),
        };
        F80::new((self.below(2) << 15 | exponent) as u16, integer_bit << 63 | self.field(63))
    }

    /// A second operand that is often close to the first, so that sums cancel.
    pub(super) fn f80_near(&mut self, other: F80) -> F80 {
        if self.below(4) != 0 {
            return self.f80();
        }
        let exponent = u64::from(other.biased()) + self.below(5);
        let exponent = exponent.saturating_sub(2).min(0x7fff) as u16;
        let flip = if self.below(2) == 0 { self.field(63) } else { 0 };
        F80::new(exponent | (self.below(2) as u16) << 15, other.mantissa ^ flip)
    }

    pub(super) fn f64_near(&mut self, other: u64) -> u64 {
        match self.below(4) {
            0 => other ^ self.below(4) << 52 ^ self.below(2) << 63 ^ self.field(52),
            _ => self.f64(),
        }
    }

    pub(super) fn f32_near(&mut self, other: u32) -> u32 {
        match self.below(4) {
            0 => {
                other
                    ^ (self.below(4) as u32) << 23
                    ^ (self.below(2) as u32) << 31
                    ^ self.field(23) as u32
            }
            _ => self.f32(),
        }
    }
}
