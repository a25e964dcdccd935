//! Arithmetic, logic, shifts, bit tests and conditions as values.

use iced_x86::{Instruction, Mnemonic};

use super::operands::{Kind, condition, kind, size_of_operand};
use super::shape::{into_register, lock, modify, read, source};
use crate::asm::alu::{ADD, CMP};
use crate::asm::condition::{NOT_ABOVE, NOT_BELOW, NOT_EQUAL};
use crate::asm::shift::SAR;
use crate::asm::{RAX, RDX, Reg, Rm};
use crate::block::Emitter;
use crate::memory::Access;
use crate::registers::{ACCUMULATOR, ADDRESS, FLAGS, TEMP, TEMP2, home, host, place};

/// An operation that writes its first operand.
pub(super) fn emit_binary(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    operation: u8,
    needs_flags: bool,
) {
    match (kind(instruction, 0), kind(instruction, 1)) {
        (Some(Kind::Register(_)), Some(Kind::Register(_) | Kind::Memory)) => {
            into_register(e, instruction, op, needs_flags, None, |e, size, to, from| {
                e.asm.alu(size, operation, to, from);
                e.flags_set();
            });
        }
        (_, source) => {
            let locked = instruction.has_lock_prefix();
            modify(e, instruction, op, needs_flags, true, |e, size, rm| match source {
                Some(Kind::Immediate(value)) => {
                    lock(e, locked);
                    e.asm.alu_imm(size, operation, rm, value);
                }
                // To memory.
                Some(Kind::Register(n)) => {
                    let register = read(e, n, size);
                    lock(e, locked);
                    e.asm.alu_to(size, operation, rm, register);
                }
                _ => {}
            });
        }
    }
}

/// CMP and TEST: neither operand is written.
pub(super) fn emit_comparison(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    let is_test = instruction.mnemonic() == Mnemonic::Test;
    let misses = match (kind(instruction, 0), kind(instruction, 1)) {
        (Some(Kind::Register(n)), Some(Kind::Memory)) => {
            let (rm, misses) = source(e, instruction, 1, size);
            let register = read(e, n, size);
            e.asm.alu(size, CMP, register, rm);
            misses
        }
        (_, second) => {
            let (rm, misses) = source(e, instruction, 0, size);
            match second {
                Some(Kind::Immediate(value)) if is_test => e.asm.test_imm(size, rm, value),
                Some(Kind::Immediate(value)) => e.asm.alu_imm(size, CMP, rm, value),
                Some(Kind::Register(n)) => {
                    let register = read(e, n, size);
                    if is_test {
                        e.asm.test(size, register, rm);
                    } else {
                        e.asm.alu_to(size, CMP, rm, register);
                    }
                }
                _ => {}
            }
            misses
        }
    };
    e.flags_set();
    e.interpreted(misses, op);
}

pub(super) fn emit_multiply(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    if instruction.op_count() == 1 {
        let extension = if instruction.mnemonic() == Mnemonic::Mul { 4 } else { 5 };
        let (rm, misses) = source(e, instruction, 0, size);
        // All flags are new ones.
        e.asm.mov(8, RAX, ACCUMULATOR);
        e.asm.ext(size, 0xf6, extension, rm);
        // Of a byte, the product is AX.
        e.asm.mov(size.max(2), ACCUMULATOR, RAX);
        e.flags_set();
        e.interpreted(misses, op);
        return;
    }
    let factor = match kind(instruction, 2) {
        Some(Kind::Immediate(value)) => Some(value),
        _ => None,
    };
    into_register(e, instruction, op, false, None, |e, size, to, from| {
        match factor {
            Some(value) => {
                e.asm.raw(size, &[0x69], to, from);
                e.asm.bytes(&value.to_le_bytes());
            }
            None => e.asm.raw(size, &[0x0f, 0xaf], to, from),
        }
        e.flags_set();
    });
}

/// DIV and IDIV of 32 and 64 bits. What faults is left to the interpreter, and so is a signed dividend
/// that is not sign-extended from its lower half. No flag changes, as by the interpreter.
pub(super) fn emit_divide(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    e.lose_flags();
    let (rm, mut misses) = source(e, instruction, 0, size);
    let signed = instruction.mnemonic() == Mnemonic::Idiv;
    if signed {
        // 0, and -1, by which the least dividend faults.
        e.asm.mov(size, TEMP, rm);
        e.asm.alu_imm(size, ADD, TEMP, 1);
        e.asm.alu_imm(size, CMP, TEMP, 1);
        misses.push(e.asm.jcc(NOT_ABOVE));
        e.asm.mov(size, TEMP, ACCUMULATOR);
        e.asm.shift_imm(size, SAR, TEMP, size * 8 - 1);
        e.asm.alu(size, CMP, TEMP, RDX);
        misses.push(e.asm.jcc(NOT_EQUAL));
    } else {
        // The quotient fits where the upper half is below the divisor, which is not 0 then.
        e.asm.alu(size, CMP, RDX, rm);
        misses.push(e.asm.jcc(NOT_BELOW));
    }
    e.asm.mov(8, TEMP2, FLAGS);
    e.asm.mov(size, RAX, ACCUMULATOR);
    e.asm.ext(size, 0xf6, if signed { 7 } else { 6 }, rm);
    e.asm.mov(size, ACCUMULATOR, RAX);
    e.asm.mov(8, FLAGS, TEMP2);
    e.interpreted(misses, op);
}

/// SHLD and SHRD of 32 and 64 bits.
pub(super) fn emit_double_shift(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    needs_flags: bool,
) {
    let opcode = if instruction.mnemonic() == Mnemonic::Shld { 0xa4 } else { 0xac };
    let Some(Kind::Register(filler)) = kind(instruction, 1) else { return };
    let count = kind(instruction, 2);
    let in_memory = kind(instruction, 0) == Some(Kind::Memory);
    modify(e, instruction, op, needs_flags, true, |e, size, rm| {
        let filler = host(filler).unwrap_or_else(|| {
            // What shifts may be in the one, and the page's tracker in the other.
            let scratch = if in_memory { TEMP } else { TEMP2 };
            e.asm.mov(size, scratch, home(filler));
            scratch
        });
        match count {
            Some(Kind::Immediate(count)) => {
                e.asm.raw(size, &[0x0f, opcode], filler, rm);
                e.asm.bytes(&[count as u8]);
            }
            _ => e.asm.raw(size, &[0x0f, opcode + 1], filler, rm),
        }
    });
}

/// CLC, STC, CMC.
pub(super) fn emit_carry(e: &mut Emitter<'_>, instruction: &Instruction, needs_flags: bool) {
    if needs_flags {
        e.load_flags();
    }
    e.asm.bytes(&[match instruction.mnemonic() {
        Mnemonic::Clc => 0xf8,
        Mnemonic::Stc => 0xf9,
        _ => 0xf5,
    }]);
    e.flags_set();
}

pub(super) fn emit_setcc(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let opcode = [0x0f, 0x90 | condition(instruction)];
    match kind(instruction, 0) {
        Some(Kind::Register(n)) => {
            e.load_flags();
            e.asm.raw_byte(1, &opcode, Reg(0), place(n));
        }
        _ => {
            let misses = e.operand(instruction, Access::Write, 1);
            e.load_flags();
            e.asm.raw_byte(1, &opcode, Reg(0), Rm::Mem(ADDRESS, 0));
            e.after_store(op, 1);
            e.interpreted(misses, op);
        }
    }
}
