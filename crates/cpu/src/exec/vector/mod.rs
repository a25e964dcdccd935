//! MMX, SSE, AVX and the instructions that share their registers.

pub mod avx;
pub mod crypto;
pub mod form;
pub mod fp;
pub mod integer;
pub mod lane;
pub mod mask;
pub mod mmx;
pub mod operand;
pub mod save;
pub mod strings;
pub mod transfer;

use iced_x86::{Instruction, OpKind};

use crate::mode::Mode;
use crate::op::{Handler, LEGACY, Op};

/// Puts the registers of an op where the handlers of vector instructions look for them: the first
/// source in `third` (legacy SSE instructions have the destination there), the last source in
/// `src`, and the fourth register of a VEX instruction in `extra` (legacy SSE instructions have
/// XMM0 there).
fn arrange(instruction: &Instruction, op: &mut Op) {
    let is_register = |n| n < instruction.op_count() && instruction.op_kind(n) == OpKind::Register;
    op.extra = 0;
    if op.vex == LEGACY {
        // MASKMOVDQU has its memory first, and registers behind it.
        if is_register(0) {
            op.third = op.dst;
        }
        return;
    }
    // The operands of VMASKMOVDQU are where those of MASKMOVDQU are; a gather has memory second.
    if !is_register(1) || !(is_register(0) || instruction.op0_kind() == OpKind::Memory) {
        return;
    }
    let first = op.src;
    if is_register(2) {
        op.src = op.third;
    }
    op.third = first;
    if is_register(3) {
        op.extra = instruction.op3_register().number() as u32;
    }
}

/// The handler of a vector instruction.
pub fn select(instruction: &Instruction, _mode: Mode, op: &mut Op) -> Option<Handler> {
    arrange(instruction, op);
    transfer::select(instruction, op)
        .or_else(|| integer::select(instruction, op))
        .or_else(|| fp::select(instruction, op))
        .or_else(|| strings::select(instruction, op))
        .or_else(|| crypto::select(instruction, op))
        .or_else(|| avx::select(instruction, op))
        .or_else(|| mask::select(instruction))
        .or_else(|| mmx::select(instruction))
        .or_else(|| save::select(instruction))
}

#[cfg(test)]
mod tests;
