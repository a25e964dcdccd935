//! The stack, and the branches that use it or go to where a register or memory says.

use iced_x86::Instruction;

use super::operands::{Kind, kind};
use super::shape::{before_probe, read, source, write_home};
use crate::asm::alu::CMP;
use crate::asm::condition::NOT_EQUAL;
use crate::asm::shift::{SAR, SHL};
use crate::asm::{Jump, R10, RBP, Reg, Rm};
use crate::block::Emitter;
use crate::memory::Access;
use crate::registers::{ADDRESS, START, TEMP, TEMP2, host, place};

/// Where the guest's RSP is.
const STACK: Reg = R10;

pub(super) fn emit_push(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    before_probe(e);
    e.asm.lea(8, ADDRESS, Rm::Mem(STACK, -8));
    let misses = e.probe(Access::Write, 8);
    match kind(instruction, 0) {
        Some(Kind::Register(n)) => {
            let register = read(e, n, 8);
            e.asm.store(8, Rm::Mem(ADDRESS, 0), register);
        }
        Some(Kind::Immediate(value)) => e.asm.store_imm(8, Rm::Mem(ADDRESS, 0), value),
        _ => {}
    }
    e.asm.lea(8, STACK, Rm::Mem(STACK, -8));
    e.after_store();
    e.interpreted(misses, op);
}

pub(super) fn emit_pop(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    before_probe(e);
    e.asm.mov(8, ADDRESS, STACK);
    let misses = e.probe(Access::Read, 8);
    match host(n) {
        Some(to) => e.asm.mov(8, to, Rm::Mem(ADDRESS, 0)),
        None => {
            e.asm.mov(8, TEMP, Rm::Mem(ADDRESS, 0));
            write_home(e, n, 8);
        }
    }
    e.asm.lea(8, STACK, Rm::Mem(STACK, 8));
    e.interpreted(misses, op);
}

pub(super) fn emit_leave(e: &mut Emitter<'_>, op: u64) {
    before_probe(e);
    e.asm.mov(8, ADDRESS, RBP);
    let misses = e.probe(Access::Read, 8);
    e.asm.lea(8, STACK, Rm::Mem(RBP, 8));
    e.asm.mov(8, RBP, Rm::Mem(ADDRESS, 0));
    e.interpreted(misses, op);
}

/// A jump to where the interpreter faults, if the address in `TEMP` is not canonical.
fn not_canonical(e: &mut Emitter<'_>) -> Jump {
    e.asm.mov(8, TEMP2, TEMP);
    e.asm.shift_imm(8, SHL, TEMP2, 16);
    e.asm.shift_imm(8, SAR, TEMP2, 16);
    e.asm.alu(8, CMP, TEMP2, TEMP);
    e.asm.jcc(NOT_EQUAL)
}

/// Goes to the block at `START`. Where the interpreter does the branch, it has left this block.
fn leave_block(e: &mut Emitter<'_>, misses: Vec<Jump>, op: u64) {
    e.asm.jmp_to(e.stubs.dispatch);
    e.interpreted(misses, op);
    e.asm.jmp_to(e.stubs.leave);
}

/// Where a relative branch goes, from the block's start.
fn target(instruction: &Instruction) -> Rm {
    Rm::Mem(START, instruction.near_branch64() as i64 as i32)
}

pub(super) fn emit_jmp(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    before_probe(e);
    if kind(instruction, 0).is_none() {
        e.asm.lea(8, START, target(instruction));
        e.asm.jmp_to(e.stubs.dispatch);
        return;
    }
    let (from, mut misses) = source(e, instruction, 0, 8);
    e.asm.mov(8, TEMP, from);
    misses.push(not_canonical(e));
    e.asm.mov(8, START, TEMP);
    leave_block(e, misses, op);
}

pub(super) fn emit_call(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    before_probe(e);
    let next = Rm::Mem(START, instruction.next_ip() as i32);
    let indirect = match kind(instruction, 0) {
        Some(Kind::Register(n)) => Some(n),
        _ => None,
    };
    let mut misses = Vec::new();
    if let Some(n) = indirect {
        e.asm.mov(8, TEMP, place(n));
        misses.push(not_canonical(e));
    }
    e.asm.lea(8, ADDRESS, Rm::Mem(STACK, -8));
    misses.extend(e.probe(Access::Write, 8));
    e.asm.lea(8, TEMP, next);
    e.asm.store(8, Rm::Mem(ADDRESS, 0), TEMP);
    e.asm.lea(8, STACK, Rm::Mem(STACK, -8));
    match indirect {
        // Before the look at the tracker, which may call.
        Some(4) => {
            // The target is RSP before the push.
            e.asm.lea(8, START, Rm::Mem(STACK, 8));
        }
        Some(n) => e.asm.mov(8, START, place(n)),
        None => e.asm.lea(8, START, target(instruction)),
    }
    e.after_store();
    leave_block(e, misses, op);
}

pub(super) fn emit_ret(e: &mut Emitter<'_>, op: u64) {
    before_probe(e);
    e.asm.mov(8, ADDRESS, STACK);
    let mut misses = e.probe(Access::Read, 8);
    e.asm.mov(8, TEMP, Rm::Mem(ADDRESS, 0));
    misses.push(not_canonical(e));
    e.asm.lea(8, STACK, Rm::Mem(STACK, 8));
    e.asm.mov(8, START, TEMP);
    leave_block(e, misses, op);
}
