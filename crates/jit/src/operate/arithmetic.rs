//! Arithmetic, logic, shifts, bit tests and conditions as values.

use iced_x86::{Instruction, Mnemonic};

use super::operands::{Kind, condition, kind, size_of_operand};
use super::shape::{before_probe, into_register, modify, read, source, stored};
use crate::asm::alu::CMP;
use crate::asm::{Reg, Rm};
use crate::block::Emitter;
use crate::memory::Access;
use crate::registers::{ADDRESS, TEMP, TEMP2, home, host, place};

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
            modify(e, instruction, op, needs_flags, true, |e, size, rm| match source {
                Some(Kind::Immediate(value)) => e.asm.alu_imm(size, operation, rm, value),
                // To memory, whose value is in `TEMP`.
                Some(Kind::Register(n)) => e.asm.alu(size, operation, TEMP, place(n)),
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
        e.asm.ext(size, 0xf6, extension, rm);
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

pub(super) fn emit_bt(e: &mut Emitter<'_>, instruction: &Instruction, needs_flags: bool) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    if needs_flags {
        e.load_flags();
    }
    match kind(instruction, 1) {
        Some(Kind::Immediate(bit)) => {
            let bit = bit as u8 & (size * 8 - 1);
            e.asm.raw(size, &[0x0f, 0xba], Reg(4), place(n));
            e.asm.bytes(&[bit]);
        }
        Some(Kind::Register(m)) => {
            // A register, for in memory the bit would be anywhere.
            let value = read(e, n, size);
            let bit = match host(m) {
                Some(bit) => bit,
                None => {
                    e.asm.mov(size, TEMP2, home(m));
                    TEMP2
                }
            };
            e.asm.raw(size, &[0x0f, 0xa3], bit, value);
        }
        _ => {}
    }
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
            before_probe(e);
            let misses = e.operand(instruction, Access::Write, 1);
            e.load_flags();
            e.asm.raw_byte(1, &opcode, Reg(0), Rm::Mem(ADDRESS, 0));
            stored(e);
            e.interpreted(misses, op);
        }
    }
}
