//! Where the operands of a case lie.

use iced_x86::{Instruction, OpKind, Register};

use super::case::{Mode, State};
use super::segments::{self, SS};

/// Linear address of the memory operand.
pub(crate) fn address_of(instruction: &Instruction, mode: Mode, state: &State) -> u64 {
    let value = |register: Register| match register {
        Register::None => 0,
        register => state.gpr[register.number()],
    };
    let sum = value(instruction.memory_base())
        .wrapping_add(
            value(instruction.memory_index())
                .wrapping_mul(u64::from(instruction.memory_index_scale())),
        )
        .wrapping_add(instruction.memory_displacement64());
    let base = state.base(mode, instruction.memory_segment().number());
    let linear = base.wrapping_add(sum & address_mask(instruction, mode));
    if mode.is_64() { linear } else { linear & 0xffff_ffff }
}

/// The bits that the address size keeps.
pub(crate) fn address_mask(instruction: &Instruction, mode: Mode) -> u64 {
    let register = match instruction.memory_base() {
        Register::None => instruction.memory_index(),
        base => base,
    };
    let string = (0..instruction.op_count()).map(|n| instruction.op_kind(n)).find_map(|kind| {
        Some(match kind {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 2,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 4,
            OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => 8,
            _ => return None,
        })
    });
    let size = match string {
        Some(size) => size,
        None if register.is_gpr() => register.size(),
        // iced has extended an absolute address.
        None if mode.is_64() => 8,
        None => instruction.memory_displ_size() as usize,
    };
    match size {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Linear address of the top of the stack.
pub(crate) fn stack_top(mode: Mode, state: &State) -> u64 {
    if mode.is_64() {
        return state.gpr[4];
    }
    let wide = segments::find(state.selectors[SS]).is_some_and(|segment| segment.wide);
    let mask = if wide { 0xffff_ffff } else { 0xffff };
    state.base(mode, SS).wrapping_add(state.gpr[4] & mask) & 0xffff_ffff
}
