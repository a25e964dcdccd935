//! The arithmetic flags, computed when they are asked for.
//!
//! An arithmetic instruction stores its result and the vector of carries out of each bit; CF, OF,
//! AF, ZF, SF and PF follow from these without a record of which instruction it was.

use cloister_x86::regs::Rflags;

use crate::mem::Int;

/// CF, PF, AF, ZF, SF and OF.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    /// The result, sign-extended to 64 bits: ZF is `result == 0`.
    result: u64,
    /// Bit 63: CF. Bit 63 xor bit 62: OF.
    carry: u64,
    /// Bit 4: AF. Bit 7: flips SF against the result's sign. Bits 15:8: byte whose parity flips
    /// the parity of the result's low byte.
    aux: u64,
}

impl Default for Flags {
    fn default() -> Self {
        let mut flags = Self { result: 0, carry: 0, aux: 0 };
        flags.set_bits(0);
        flags
    }
}

impl PartialEq for Flags {
    /// Whether the flags are the same, however they came about.
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Flags {}

impl Flags {
    /// All arithmetic flags.
    pub(crate) const MASK: u64 = Rflags::CF.bits()
        | Rflags::PF.bits()
        | Rflags::AF.bits()
        | Rflags::ZF.bits()
        | Rflags::SF.bits()
        | Rflags::OF.bits();

    /// After `result = a + b (+ carry)`.
    #[inline(always)]
    pub(crate) fn add<T: Int>(&mut self, a: T, b: T, result: T) {
        let (a, b, r) = (a.zext(), b.zext(), result.zext());
        let carries = (a & b) | ((a | b) & !r);
        self.carry = carries << (64 - T::BITS);
        self.aux = (a ^ b ^ r) & 0x10;
        self.result = result.sext();
    }

    /// After `result = a - b (- borrow)`; also for comparisons.
    #[inline(always)]
    pub(crate) fn sub<T: Int>(&mut self, a: T, b: T, result: T) {
        let (a, b, r) = (a.zext(), b.zext(), result.zext());
        let borrows = (!a & b) | ((!a | b) & r);
        self.carry = borrows << (64 - T::BITS);
        self.aux = (a ^ b ^ r) & 0x10;
        self.result = result.sext();
    }

    /// After AND, OR, XOR, TEST: CF, OF and AF are cleared.
    #[inline(always)]
    pub(crate) fn logic<T: Int>(&mut self, result: T) {
        self.carry = 0;
        self.aux = 0;
        self.result = result.sext();
    }

    /// Sets CF and OF and leaves the others.
    #[inline(always)]
    pub(crate) fn set_cf_of(&mut self, cf: bool, of: bool) {
        self.carry = (u64::from(cf) << 63) | (u64::from(cf ^ of) << 62);
    }

    /// Sets CF and leaves the others.
    #[inline(always)]
    pub(crate) fn set_cf(&mut self, cf: bool) {
        let of = self.of();
        self.set_cf_of(cf, of);
    }

    /// CF.
    #[inline(always)]
    #[must_use]
    pub(crate) fn cf(&self) -> bool {
        self.carry >> 63 != 0
    }

    /// OF.
    #[inline(always)]
    #[must_use]
    pub(crate) fn of(&self) -> bool {
        (self.carry ^ (self.carry << 1)) >> 63 != 0
    }

    /// ZF.
    #[inline(always)]
    #[must_use]
    pub(crate) fn zf(&self) -> bool {
        self.result == 0
    }

    /// SF.
    #[inline(always)]
    #[must_use]
    pub(crate) fn sf(&self) -> bool {
        (self.result >> 63) ^ ((self.aux >> 7) & 1) != 0
    }

    /// PF.
    #[inline(always)]
    #[must_use]
    pub(crate) fn pf(&self) -> bool {
        ((self.result ^ (self.aux >> 8)) & 0xff).count_ones() & 1 == 0
    }

    /// AF.
    #[inline(always)]
    #[must_use]
    pub(crate) fn af(&self) -> bool {
        self.aux & 0x10 != 0
    }

    /// The flags in their RFLAGS positions.
    #[must_use]
    pub fn bits(&self) -> u64 {
        u64::from(self.cf())
            | u64::from(self.pf()) << 2
            | u64::from(self.af()) << 4
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.of()) << 11
    }

    /// Sets all of them from RFLAGS positions; other bits are ignored.
    pub fn set_bits(&mut self, rflags: u64) {
        let bit = |n: u32| (rflags >> n) & 1;
        // ZF needs a zero result; SF and PF are then stated against it.
        self.result = bit(6) ^ 1;
        let result_parity_even = self.result == 0;
        let flip = u64::from(result_parity_even != (bit(2) == 1));
        self.aux = (bit(4) << 4) | (bit(7) << 7) | (flip << 8);
        self.set_cf_of(bit(0) == 1, bit(11) == 1);
    }

    /// Replaces the flags in `mask` by those of `rflags`.
    pub(crate) fn merge(&mut self, mask: u64, rflags: u64) {
        let old = self.bits();
        self.set_bits((old & !mask) | (rflags & mask));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_flags_survives_a_round_trip() {
        for n in 0..64u64 {
            let bits = (n & 1)
                | (n >> 1 & 1) << 2
                | (n >> 2 & 1) << 4
                | (n >> 3 & 1) << 6
                | (n >> 4 & 1) << 7
                | (n >> 5 & 1) << 11;
            let mut flags = Flags::default();
            flags.set_bits(bits);
            assert_eq!(flags.bits(), bits);
        }
    }
}
