//! System instructions, event delivery, debug, MSRs and the local APIC (SDM Vol. 3A).

pub(crate) mod control;
pub(crate) mod debug;
pub(crate) mod descriptor;
pub(crate) mod far;
pub(crate) mod flags;
pub(crate) mod interrupt;
pub(crate) mod io;
pub(crate) mod iret;
pub(crate) mod msr;
pub(crate) mod segments;
pub(crate) mod stack;
pub(crate) mod syscall;
pub(crate) mod tables;
pub(crate) mod task;
pub(crate) mod time;
pub(crate) mod translation;
pub(crate) mod verify;
pub(crate) mod virtual_8086;

use iced_x86::{Instruction, OpKind, Register};

use crate::exec::table::Row;
use crate::op::{Handler, Op};

/// The rows of system instructions, by family. SMX, MONITOR, MWAIT, RSM and SERIALIZE have none: the
/// processor does not enumerate them, and they are #UD. VMX instructions are in [`super::vmx`].
pub(super) const FAMILIES: &[&[Row]] = &[
    flags::ROWS,
    segments::ROWS,
    control::ROWS,
    msr::ROWS,
    time::ROWS,
    translation::ROWS,
    interrupt::ROWS,
    iret::ROWS,
    far::ROWS,
    syscall::ROWS,
    tables::ROWS,
    verify::ROWS,
];

/// The handler of MOV to or from a segment, control or debug register.
pub(super) fn mov(instruction: &Instruction, op: &Op) -> Option<Handler> {
    let register = |n| match instruction.op_kind(n) {
        OpKind::Register => instruction.op_register(n),
        _ => Register::None,
    };
    let (to, from) = (register(0), register(1));
    if to.is_segment_register() || from.is_segment_register() {
        segments::mov(to)
    } else if to.is_cr() || from.is_cr() {
        control::mov(to, op)
    } else if to.is_dr() || from.is_dr() {
        Some(debug::mov(to))
    } else {
        None
    }
}

/// Whether an instruction loads a segment register.
pub(super) fn writes_segment(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_segment_register()
}

/// Whether an instruction loads a segment, control or debug register.
pub(super) fn writes_system_register(instruction: &Instruction) -> bool {
    let register = instruction.op0_register();
    register.is_segment_register() || register.is_cr() || register.is_dr()
}

#[cfg(test)]
pub(crate) mod tests;
