//! What emitters share: reading operands, and the shapes that many instructions have.

use iced_x86::Instruction;

use super::operands::{Kind, kind, size_of_operand};
use crate::asm::{Jump, Reg, Rm, Size};
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
                    write_home(e, n, size);
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

/// Writes `TEMP` to guest register `n` in memory; a result of 32 bits clears the upper half.
pub(super) fn write_home(e: &mut Emitter<'_>, n: u8, size: Size) {
    e.asm.store(if size == 4 { 8 } else { size }, home(n), TEMP);
}

/// Where operand `n`, a register or memory of `size` bytes, can be read, and the jumps to where the
/// interpreter does the instruction. Of memory, the flags are saved before.
pub(super) fn source(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    n: u32,
    size: Size,
) -> (Rm, Vec<Jump>) {
    match kind(instruction, n) {
        Some(Kind::Register(n)) => (place(n), Vec::new()),
        _ => {
            before_probe(e);
            (Rm::Mem(ADDRESS, 0), e.operand(instruction, Access::Read, size))
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
    let (from, misses) = source(e, instruction, 1, source_size.unwrap_or(size));
    if needs_flags {
        e.load_flags();
    }
    match host(n) {
        Some(to) => operate(e, size, to, from),
        None => {
            e.asm.mov(8, TEMP, home(n));
            operate(e, size, TEMP, from);
            write_home(e, n, size);
        }
    }
    e.interpreted(misses, op);
}
