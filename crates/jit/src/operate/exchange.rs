//! Exchanges: XCHG, XADD, CMPXCHG, CMPXCHG16B.

use iced_x86::{Instruction, Mnemonic};

use super::operands::{Kind, kind, size_of_operand};
use super::shape::{aligned_for_lock, lock, write_home};
use crate::asm::{RAX, Reg, Rm};
use crate::block::Emitter;
use crate::memory::Access;
use crate::registers::{ACCUMULATOR, ADDRESS, TEMP, TEMP2, home, host, place};

pub(super) fn emit_xchg(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    match (kind(instruction, 0), kind(instruction, 1)) {
        (Some(Kind::Register(a)), Some(Kind::Register(b))) => {
            e.asm.mov(size, TEMP, place(a));
            e.asm.mov(size, TEMP2, place(b));
            for (n, value) in [(a, TEMP2), (b, TEMP)] {
                match host(n) {
                    Some(to) => e.asm.mov(size, to, value),
                    None => e.asm.store(if size == 4 { 8 } else { size }, home(n), value),
                }
            }
        }
        // With memory it is locked without the prefix, too.
        (_, Some(Kind::Register(n))) => with_memory(e, instruction, op, n, true, |e, register| {
            e.asm.op(size, 0x86, register, Rm::Mem(ADDRESS, 0));
        }),
        _ => {}
    }
}

/// Does `operate` to memory, operand 0, and guest register `n`, which both change.
fn with_memory(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    n: u8,
    locked: bool,
    operate: impl FnOnce(&mut Emitter<'_>, Reg),
) {
    let size = size_of_operand(instruction, 0);
    let mut misses = e.operand(instruction, Access::Write, size);
    if locked {
        aligned_for_lock(e, size, &mut misses);
    }
    let register = host(n).unwrap_or(TEMP);
    if register == TEMP {
        e.asm.mov(8, TEMP, home(n));
    }
    operate(e, register);
    if register == TEMP {
        write_home(e, n, size);
    }
    e.after_store(op, size);
    e.interpreted(misses, op);
}

pub(super) fn emit_xadd(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 1) else { return };
    let locked = instruction.has_lock_prefix();
    with_memory(e, instruction, op, n, locked, |e, register| {
        lock(e, locked);
        let opcode = if size == 1 { 0xc0 } else { 0xc1 };
        e.asm.byte_form(size, &[0x0f, opcode], register, Rm::Mem(ADDRESS, 0));
        e.flags_set();
    });
}

/// CMPXCHG with memory. `FLAGS`, which the host needs for RAX, is free: all flags are new ones.
pub(super) fn emit_cmpxchg(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 1) else { return };
    let locked = instruction.has_lock_prefix();
    let mut misses = e.operand(instruction, Access::Write, size);
    if locked {
        aligned_for_lock(e, size, &mut misses);
    }
    let register = host(n).unwrap_or_else(|| {
        e.asm.mov(8, TEMP, home(n));
        TEMP
    });
    e.asm.mov(8, RAX, ACCUMULATOR);
    lock(e, locked);
    let opcode = if size == 1 { 0xb0 } else { 0xb1 };
    e.asm.byte_form(size, &[0x0f, opcode], register, Rm::Mem(ADDRESS, 0));
    e.asm.mov(8, ACCUMULATOR, RAX);
    e.flags_set();
    e.after_store(op, size);
    e.interpreted(misses, op);
}

/// Whether the host has CMPXCHG16B.
pub(super) fn has_cmpxchg16b() -> bool {
    std::arch::is_x86_feature_detected!("cmpxchg16b")
}

/// CMPXCHG16B, whose operands but RAX are in registers of their own. The flags are in the host's
/// register unless they are not wanted.
pub(super) fn emit_cmpxchg16b(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    needs_flags: bool,
) {
    debug_assert_eq!(instruction.mnemonic(), Mnemonic::Cmpxchg16b);
    let mut misses = e.operand(instruction, Access::Write, 16);
    aligned_for_lock(e, 16, &mut misses);
    if needs_flags {
        e.load_flags();
    }
    e.asm.mov(8, RAX, ACCUMULATOR);
    lock(e, instruction.has_lock_prefix());
    e.asm.raw(8, &[0x0f, 0xc7], Reg(1), Rm::Mem(ADDRESS, 0));
    e.asm.mov(8, ACCUMULATOR, RAX);
    e.flags_set();
    e.after_store(op, 16);
    e.interpreted(misses, op);
}
