//! The stack, and the branches that use it or go to where a register or memory says.

use cloister_cpu::native::{NativeOp, layout};
use iced_x86::{Code, Instruction, Mnemonic, Register};

use super::operands::{Kind, kind};
use super::shape::{read, source, write_home};
use crate::asm::alu::CMP;
use crate::asm::condition::NOT_EQUAL;
use crate::asm::{RBP, Rm};
use crate::block::Emitter;
use crate::memory::{Access, Misses};
use crate::registers::{ADDRESS, STACK, TEMP, TEMP2, field, host};

pub(super) fn emit_push(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let mut misses = Misses::default();
    let value = kind(instruction, 0);
    if value == Some(Kind::Memory) {
        misses.extend(e.operand(instruction, Access::Read, 8));
        e.asm.mov(8, TEMP, Rm::Mem(ADDRESS, 0));
        e.asm.store(8, field(layout::RIP), TEMP);
    }
    e.asm.lea(8, ADDRESS, Rm::Mem(STACK, -8));
    misses.extend(e.probe_stack(Access::Write, 8));
    match value {
        Some(Kind::Register(n)) => {
            let register = read(e, n, 8);
            e.asm.store(8, Rm::Mem(ADDRESS, 0), register);
        }
        Some(Kind::Immediate(value)) => e.asm.store_imm(8, Rm::Mem(ADDRESS, 0), value),
        _ => {
            e.asm.mov(8, TEMP, field(layout::RIP));
            e.asm.store(8, Rm::Mem(ADDRESS, 0), TEMP);
        }
    }
    e.asm.lea(8, STACK, Rm::Mem(STACK, -8));
    e.after_store(op, 8);
    e.interpreted(misses, op);
}

pub(super) fn emit_pop(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    e.asm.mov(8, ADDRESS, STACK);
    let misses = e.probe_stack(Access::Read, 8);
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

/// More pushes or pops than one probe is made for: they touch at most two lines.
const MOST_OF_A_RUN: usize = 8;

/// How many of the instructions, from the first on, are pushes of registers, for which one probe does,
/// or pops.
pub(crate) fn run_length(instructions: &[Instruction]) -> usize {
    let is_push = |instruction: &Instruction| {
        instruction.code() == Code::Push_r64 && instruction.op0_register() != Register::RSP
    };
    let is_pop = |instruction: &Instruction| {
        instruction.code() == Code::Pop_r64 && instruction.op0_register() != Register::RSP
    };
    let length = |is: fn(&Instruction) -> bool| {
        instructions.iter().take(MOST_OF_A_RUN).take_while(|instruction| is(instruction)).count()
    };
    length(is_push).max(length(is_pop))
}

/// Pushes or pops, as [`run_length`] has counted them, whose first op is at `op`.
pub(crate) fn emit_run(e: &mut Emitter<'_>, instructions: &[Instruction], op: u64) {
    let size = 8 * instructions.len() as u8;
    let numbers = instructions.iter().map(|instruction| instruction.op0_register().number() as u8);
    let slots = (0..instructions.len() as i32).map(|slot| Rm::Mem(ADDRESS, 8 * slot));
    let misses = if instructions[0].mnemonic() == Mnemonic::Push {
        e.asm.lea(8, ADDRESS, Rm::Mem(STACK, -i32::from(size)));
        let mut misses = e.probe_stack(Access::Write, size);
        // Were it code, each would be the last that the block does.
        e.asm.alu_imm(8, CMP, Rm::Mem(TEMP2, layout::TRACK_LINES as i32), 0);
        misses.push(e.asm.jcc(NOT_EQUAL));
        for (n, slot) in numbers.zip(slots.rev()) {
            let register = read(e, n, 8);
            e.asm.store(8, slot, register);
        }
        e.asm.lea(8, STACK, Rm::Mem(STACK, -i32::from(size)));
        let last = (instructions.len() - 1) * size_of::<NativeOp>();
        e.after_store(op + last as u64, size);
        misses
    } else {
        e.asm.mov(8, ADDRESS, STACK);
        let misses = e.probe_stack(Access::Read, size);
        for (n, slot) in numbers.zip(slots) {
            e.asm.mov(8, host(n).unwrap_or(TEMP), slot);
            if host(n).is_none() {
                write_home(e, n, 8);
            }
        }
        e.asm.lea(8, STACK, Rm::Mem(STACK, i32::from(size)));
        misses
    };
    e.all_interpreted(misses, op, instructions.len());
}

pub(super) fn emit_leave(e: &mut Emitter<'_>, op: u64) {
    e.asm.mov(8, ADDRESS, RBP);
    let misses = e.probe_stack(Access::Read, 8);
    e.asm.lea(8, STACK, Rm::Mem(RBP, 8));
    e.asm.mov(8, RBP, Rm::Mem(ADDRESS, 0));
    e.interpreted(misses, op);
}

/// Where the interpreter does the branch, it has left this block.
fn or_leave(e: &mut Emitter<'_>, misses: Misses, op: u64) {
    e.interpreted(misses, op);
    e.asm.jmp_to(e.stubs.leave);
}

/// Where a relative branch goes, from the page's start.
fn target(instruction: &Instruction) -> i32 {
    instruction.near_branch64() as i64 as i32
}

pub(super) fn emit_jmp(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    e.lose_flags();
    if kind(instruction, 0).is_none() {
        return e.exit_to(target(instruction));
    }
    let (from, mut misses) = source(e, instruction, 0, 8);
    e.asm.mov(8, ADDRESS, from);
    misses.push(e.not_canonical());
    e.exit_anywhere();
    or_leave(e, misses, op);
}

pub(super) fn emit_call(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    e.lose_flags();
    let indirect = kind(instruction, 0).is_some();
    let mut misses = Misses::default();
    if indirect {
        let (from, more) = source(e, instruction, 0, 8);
        misses.extend(more);
        e.asm.mov(8, ADDRESS, from);
        misses.push(e.not_canonical());
        // Whoever leaves the block writes RIP: until then there is room for a value.
        e.asm.store(8, field(layout::RIP), ADDRESS);
    }
    e.asm.lea(8, ADDRESS, Rm::Mem(STACK, -8));
    misses.extend(e.probe_stack(Access::Write, 8));
    e.asm.mov(8, TEMP, field(layout::PAGE));
    e.asm.lea(8, TEMP, Rm::Mem(TEMP, instruction.next_ip() as i32));
    e.asm.store(8, Rm::Mem(ADDRESS, 0), TEMP);
    e.asm.lea(8, STACK, Rm::Mem(STACK, -8));
    e.note_call();
    e.after_store(op, 8);
    if indirect {
        e.asm.mov(8, ADDRESS, field(layout::RIP));
        e.exit_anywhere();
    } else {
        e.exit_to(target(instruction));
    }
    or_leave(e, misses, op);
}

/// RSP after a near return.
pub(crate) fn pop_return_address(e: &mut Emitter<'_>) {
    e.asm.lea(8, STACK, Rm::Mem(STACK, 8));
}

pub(super) fn emit_ret(e: &mut Emitter<'_>, op: u64) {
    e.lose_flags();
    e.asm.mov(8, ADDRESS, STACK);
    let misses = e.probe_stack(Access::Read, 8);
    e.asm.mov(8, ADDRESS, Rm::Mem(ADDRESS, 0));
    e.exit_to_caller(misses, op, pop_return_address);
}
