//! The x87 FPU (SDM Vol. 1, chapter 8).

use iced_x86::Instruction;

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// An 80-bit register: what FSTP m80 stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reg80 {
    /// Significand with its explicit integer bit. MMX registers are these.
    pub mantissa: u64,
    /// Sign (bit 15) and biased exponent.
    pub sign_exp: u16,
}

/// x87 state.
#[derive(Clone, Debug)]
pub struct Fpu {
    /// R0 to R7, the physical registers; ST(i) is `regs[(top + i) & 7]`.
    pub regs: [Reg80; 8],
    /// Control word.
    pub control: u16,
    /// Status word without TOP (bits 13:11), which is `top`.
    pub status: u16,
    /// Top of stack, 0 to 7.
    pub top: u8,
    /// Bit n: Rn is not empty (the abridged tag word of FXSAVE).
    pub tags: u8,
    /// Last instruction opcode, 11 bits.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Last data pointer.
    pub fdp: u64,
}

impl Default for Fpu {
    fn default() -> Self {
        // After power-up reset (SDM Vol. 3A, table 9-1); FNINIT leaves 037FH instead.
        Self {
            regs: [Reg80::default(); 8],
            control: 0x40,
            status: 0,
            top: 0,
            tags: 0xff,
            fop: 0,
            fip: 0,
            fdp: 0,
        }
    }
}

/// The handler of an x87 instruction.
pub fn select(_instruction: &Instruction, _mode: Mode, _op: &mut Op) -> Option<Handler> {
    None
}
