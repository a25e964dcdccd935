//! MMX, SSE, AVX and the instructions that share their registers.

pub(crate) mod avx;
pub(crate) mod crypto;
pub(crate) mod form;
pub(crate) mod fp;
pub(crate) mod integer;
pub(crate) mod lane;
pub(crate) mod mask;
pub(crate) mod mmx;
pub(crate) mod operand;
pub(crate) mod save;
pub(crate) mod strings;
pub(crate) mod transfer;

use iced_x86::{Instruction, OpKind};

use crate::exec::table::Row;
use crate::op::{LEGACY, Op};

/// Puts the registers of an op where the handlers of vector instructions look for them: the first
/// source in `third` (legacy SSE instructions have the destination there), the last source in
/// `src`, and the fourth register of a VEX instruction in `extra` (legacy SSE instructions have
/// XMM0 there).
pub(super) fn arrange(instruction: &Instruction, op: Op) -> Op {
    let is_register = |n| n < instruction.op_count() && instruction.op_kind(n) == OpKind::Register;
    if op.vex == LEGACY {
        // MASKMOVDQU has its memory first and its registers after it.
        let third = if is_register(0) { op.dst } else { op.third };
        return Op { third, extra: 0, ..op };
    }
    // The operands of VMASKMOVDQU are where those of MASKMOVDQU are; a gather has memory second.
    if !is_register(1) || !(is_register(0) || instruction.op0_kind() == OpKind::Memory) {
        return Op { extra: 0, ..op };
    }
    let src = if is_register(2) { op.third } else { op.src };
    let extra = if is_register(3) { instruction.op3_register().number() as u32 } else { 0 };
    Op { src, third: op.src, extra, ..op }
}

/// The rows of MMX and vector instructions that have no folder of their own, by family.
pub(in crate::exec) const FAMILIES: &[&[Row]] =
    &[transfer::ROWS, strings::ROWS, mask::ROWS, mmx::ROWS];

#[cfg(test)]
mod tests;
