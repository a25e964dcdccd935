//! General-purpose registers (SDM Vol. 1, 3.4.1).

use core::ops::{Index, IndexMut};

/// A general-purpose register. The discriminant is its number in instruction encodings, with the
/// bit of the REX prefix on top (SDM Vol. 2A, table 2-4 and following).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Gpr {
    /// RAX.
    Rax = 0,
    /// RCX.
    Rcx = 1,
    /// RDX.
    Rdx = 2,
    /// RBX.
    Rbx = 3,
    /// RSP.
    Rsp = 4,
    /// RBP.
    Rbp = 5,
    /// RSI.
    Rsi = 6,
    /// RDI.
    Rdi = 7,
    /// R8.
    R8 = 8,
    /// R9.
    R9 = 9,
    /// R10.
    R10 = 10,
    /// R11.
    R11 = 11,
    /// R12.
    R12 = 12,
    /// R13.
    R13 = 13,
    /// R14.
    R14 = 14,
    /// R15.
    R15 = 15,
}

impl Gpr {
    /// How many there are.
    pub const COUNT: usize = 16;

    /// Its place in an array in encoding order.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Index<Gpr> for [u64; Gpr::COUNT] {
    type Output = u64;

    fn index(&self, register: Gpr) -> &u64 {
        &self[register.index()]
    }
}

impl IndexMut<Gpr> for [u64; Gpr::COUNT] {
    fn index_mut(&mut self, register: Gpr) -> &mut u64 {
        &mut self[register.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_in_encoding_order_are_reached_by_name() {
        let mut registers = core::array::from_fn(|n| n as u64);
        assert_eq!((registers[Gpr::Rsp], registers[Gpr::Rdi], registers[Gpr::R15]), (4, 7, 15));

        registers[Gpr::Rbx] = 100;

        assert_eq!(registers[3], 100);
    }
}
