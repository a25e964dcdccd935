//! What emitters share: reading operands, and the shapes that many instructions have.

use iced_x86::Instruction;

use super::operands::{Kind, kind, size_of_operand};
use crate::asm::condition::NOT_EQUAL;
use crate::asm::{Reg, Rm, Size};
use crate::block::Emitter;
use crate::memory::{Access, Misses};
use crate::registers::{ADDRESS, TEMP, home, host, place};

/// What a locked access to `ADDRESS` needs: the interpreter does one that is not aligned, of which the
/// host would make a bus lock. Overwrites flags.
pub(super) fn aligned_for_lock(e: &mut Emitter<'_>, size: Size, misses: &mut Misses) {
    if size > 1 {
        e.asm.test_imm(1, ADDRESS, i32::from(size) - 1);
        misses.push(e.asm.jcc(NOT_EQUAL));
    }
}

/// The LOCK prefix of the next instruction, if it has one.
pub(super) fn lock(e: &mut Emitter<'_>, locked: bool) {
    if locked {
        e.asm.bytes(&[0xf0]);
    }
}

/// Does `operate` to operand 0, a register or memory. It may use `TEMP`.
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
            let mut misses = e.operand(instruction, Access::Write, size);
            if instruction.has_lock_prefix() {
                aligned_for_lock(e, size, &mut misses);
            }
            if needs_flags {
                e.load_flags();
            }
            operate(e, size, Rm::Mem(ADDRESS, 0));
            if sets_flags {
                e.flags_set();
            }
            e.after_store(op, size);
            e.interpreted(misses, op);
        }
    }
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
/// interpreter does the instruction. Memory is probed, which overwrites flags.
pub(super) fn source(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    n: u32,
    size: Size,
) -> (Rm, Misses) {
    match kind(instruction, n) {
        Some(Kind::Register(n)) => (place(n), Misses::default()),
        _ => (Rm::Mem(ADDRESS, 0), e.operand(instruction, Access::Read, size)),
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
