//! What emitters share: reading operands, and the shapes that many instructions have.

use iced_x86::Instruction;

use super::operands::{Kind, kind, size_of_operand};
use crate::asm::{Reg, Rm, Size};
use crate::block::Emitter;
use crate::memory::Access;
use crate::registers::{ADDRESS, TEMP, home, host, place};

/// Before the flags are overwritten by a look into the TLB.
pub(super) fn before_probe(e: &mut Emitter<'_>) {
    // An instruction that may be left wants all flags before it.
    e.save_flags(true);
}

/// Does `operate` to operand 0, a register or memory.
pub(super) fn modify(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    needs_flags: bool,
    sets_flags: bool,
    operate: impl FnOnce(&mut Emitter<'_>, Size, Rm),
) {
    let size = size_of_operand(instruction, 0);
    match kind(instruction, 0) {
        Some(Kind::Register(n)) => {
            if needs_flags {
                e.load_flags();
            }
            match (host(n), size) {
                (None, 4) => {
                    e.asm.mov(4, TEMP, home(n));
                    operate(e, 4, TEMP.into());
                    e.asm.store(8, home(n), TEMP);
                }
                _ => operate(e, size, place(n)),
            }
            if sets_flags {
                e.flags_set();
            }
        }
        _ => {
            before_probe(e);
            let misses = e.operand(instruction, Access::Write, size);
            if needs_flags {
                e.load_flags();
            }
            e.asm.mov(size, TEMP, Rm::Mem(ADDRESS, 0));
            operate(e, size, TEMP.into());
            e.asm.store(size, Rm::Mem(ADDRESS, 0), TEMP);
            if sets_flags {
                e.flags_set();
            }
            stored(e);
            e.interpreted(misses, op);
        }
    }
}

/// After a store: another look at the tracker, with the flags in memory if anybody wants them.
pub(super) fn stored(e: &mut Emitter<'_>) {
    let wanted = e.wanted != 0;
    e.save_flags(wanted);
    e.after_store();
}

/// A register to read guest register `n` from: its own, or `TEMP`.
pub(super) fn read(e: &mut Emitter<'_>, n: u8, size: Size) -> Reg {
    host(n).unwrap_or_else(|| {
        e.asm.mov(size.max(4), TEMP, home(n));
        TEMP
    })
}

/// Compares guest register `n` with operand 1, a register or memory.
pub(super) fn compare(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    n: u8,
    operate: impl FnOnce(&mut Emitter<'_>, Size, Reg, Rm),
) {
    let size = size_of_operand(instruction, 0);
    match kind(instruction, 1) {
        Some(Kind::Register(m)) => {
            let register = read(e, n, size);
            operate(e, size, register, place(m));
            e.flags_set();
        }
        _ => {
            before_probe(e);
            let misses = e.operand(instruction, Access::Read, size);
            let register = read(e, n, size);
            operate(e, size, register, Rm::Mem(ADDRESS, 0));
            e.flags_set();
            e.interpreted(misses, op);
        }
    }
}

/// Does `operate` on register operand 0 and operand 1, a register or memory of `source_size` bytes
/// (that of operand 0 without one).
pub(super) fn into_register(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    needs_flags: bool,
    source_size: Option<Size>,
    operate: impl FnOnce(&mut Emitter<'_>, Size, Reg, Rm),
) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    let memory = kind(instruction, 1) == Some(Kind::Memory);
    let mut misses = Vec::new();
    let from = if memory {
        before_probe(e);
        misses = e.operand(instruction, Access::Read, source_size.unwrap_or(size));
        Rm::Mem(ADDRESS, 0)
    } else {
        match kind(instruction, 1) {
            Some(Kind::Register(m)) => place(m),
            _ => return,
        }
    };
    if needs_flags {
        e.load_flags();
    }
    match host(n) {
        Some(to) => operate(e, size, to, from),
        None => {
            e.asm.mov(8, TEMP, home(n));
            operate(e, size, TEMP, from);
            // A result of 32 bits has cleared the upper half.
            e.asm.store(if size == 4 { 8 } else { size }, home(n), TEMP);
        }
    }
    if memory {
        e.interpreted(misses, op);
    }
}
