//! Where an op is, and its register operands.

use crate::cpu::Cpu;
use crate::mem::Int;
use crate::op::{BLOCK_SLOT, Op};

impl Cpu {
    /// Address of the instruction that runs.
    #[inline(always)]
    #[must_use]
    pub(crate) fn op_rip(&self, op: &Op) -> u64 {
        self.truncate_rip(self.arch.gpr[usize::from(BLOCK_SLOT)].wrapping_add(u64::from(op.offset)))
    }

    /// Address of the instruction after the one that runs.
    #[inline(always)]
    #[must_use]
    pub(crate) fn next_rip(&self, op: &Op) -> u64 {
        self.truncate_rip(
            self.arch.gpr[usize::from(BLOCK_SLOT)]
                .wrapping_add(u64::from(op.offset) + u64::from(op.len)),
        )
    }

    /// Reads operand 0, a register.
    #[inline(always)]
    #[must_use]
    pub(crate) fn dst<T: Int>(&self, op: &Op) -> T {
        self.reg(op.dst, op.high & 1 != 0)
    }

    /// Reads operand 1, a register.
    #[inline(always)]
    #[must_use]
    pub(crate) fn src<T: Int>(&self, op: &Op) -> T {
        self.reg(op.src, op.high & 2 != 0)
    }

    /// Writes operand 0, a register.
    #[inline(always)]
    pub(crate) fn set_dst<T: Int>(&mut self, op: &Op, value: T) {
        self.set_reg(op.dst, op.high & 1 != 0, value);
    }

    /// Writes operand 1, a register.
    #[inline(always)]
    pub(crate) fn set_src<T: Int>(&mut self, op: &Op, value: T) {
        self.set_reg(op.src, op.high & 2 != 0, value);
    }
}
