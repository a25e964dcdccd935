//! Arithmetic, logic, shifts, bit tests and conditions as values.

use iced_x86::{Instruction, Mnemonic};

use super::operands::{CMP, Kind, condition, kind, size_of_operand};
use super::shape::{before_probe, compare, into_register, modify, read, stored};
use crate::asm::{Reg, Rm};
use crate::block::Emitter;
use crate::memory::Access;
use crate::registers::{ADDRESS, TEMP2, home, host, place};

pub(super) fn emit_binary(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    operation: u8,
    needs_flags: bool,
) {
    let size = size_of_operand(instruction, 0);
    let source = kind(instruction, 1);
    match (kind(instruction, 0), source) {
        (Some(Kind::Register(_)), Some(Kind::Immediate(value))) if operation == CMP => {
            let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
            e.asm.alu_imm(size, CMP, place(n), value);
            e.flags_set();
        }
        (Some(Kind::Register(_)), Some(Kind::Immediate(value))) => {
            modify(e, instruction, op, needs_flags, true, |e, size, rm| {
                e.asm.alu_imm(size, operation, rm, value);
            });
        }
        (Some(Kind::Register(n)), _) if operation == CMP => {
            compare(e, instruction, op, n, |e, size, reg, rm| e.asm.alu(size, CMP, reg, rm));
        }
        (Some(Kind::Register(_)), _) => {
            into_register(e, instruction, op, needs_flags, None, |e, size, to, from| {
                e.asm.alu(size, operation, to, from);
                e.flags_set();
            });
        }
        // Memory.
        (_, source) if operation == CMP => {
            before_probe(e);
            let misses = e.operand(instruction, Access::Read, size);
            match source {
                Some(Kind::Immediate(value)) => {
                    e.asm.alu_imm(size, CMP, Rm::Mem(ADDRESS, 0), value);
                }
                Some(Kind::Register(n)) => {
                    let register = read(e, n, size);
                    e.asm.alu_to(size, CMP, Rm::Mem(ADDRESS, 0), register);
                }
                _ => {}
            }
            e.flags_set();
            e.interpreted(misses, op);
        }
        (_, source) => modify_by(e, instruction, op, operation, source, needs_flags),
    }
}

/// `memory OP= register or immediate`.
fn modify_by(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    operation: u8,
    source: Option<Kind>,
    needs_flags: bool,
) {
    modify(e, instruction, op, needs_flags, true, |e, size, rm| {
        let Rm::Reg(register) = rm else { return };
        match source {
            Some(Kind::Immediate(value)) => e.asm.alu_imm(size, operation, rm, value),
            Some(Kind::Register(n)) => e.asm.alu(size, operation, register, place(n)),
            _ => {}
        }
    });
}

pub(super) fn emit_test(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    match (kind(instruction, 0), kind(instruction, 1)) {
        (Some(Kind::Register(n)), Some(Kind::Immediate(value))) => {
            e.asm.test_imm(size, place(n), value);
            e.flags_set();
        }
        (Some(Kind::Register(n)), Some(Kind::Register(m))) => {
            let register = read(e, m, size);
            e.asm.op(size, 0x84, register, place(n));
            e.flags_set();
        }
        (_, source) => {
            before_probe(e);
            let misses = e.operand(instruction, Access::Read, size);
            match source {
                Some(Kind::Immediate(value)) => e.asm.test_imm(size, Rm::Mem(ADDRESS, 0), value),
                Some(Kind::Register(n)) => {
                    let register = read(e, n, size);
                    e.asm.op(size, 0x84, register, Rm::Mem(ADDRESS, 0));
                }
                _ => {}
            }
            e.flags_set();
            e.interpreted(misses, op);
        }
    }
}

pub(super) fn emit_multiply(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    if instruction.op_count() == 1 {
        let extension = if instruction.mnemonic() == Mnemonic::Mul { 4 } else { 5 };
        match kind(instruction, 0) {
            Some(Kind::Register(n)) => {
                e.asm.ext(size, 0xf6, extension, place(n));
                e.flags_set();
            }
            _ => {
                before_probe(e);
                let misses = e.operand(instruction, Access::Read, size);
                e.asm.ext(size, 0xf6, extension, Rm::Mem(ADDRESS, 0));
                e.flags_set();
                e.interpreted(misses, op);
            }
        }
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
