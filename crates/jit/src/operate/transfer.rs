//! Moves, exchanges and addresses.

use iced_x86::{Instruction, Mnemonic};

use super::operands::{Kind, kind, size_of_operand};
use super::shape::{into_register, read, write_home};
use crate::asm::{RAX, Rm, Size};
use crate::block::Emitter;
use crate::memory::{Access, address};
use crate::registers::{ACCUMULATOR, ADDRESS, FLAGS, TEMP, home, host, place};

pub(super) fn emit_mov(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    match (kind(instruction, 0), kind(instruction, 1)) {
        (Some(Kind::Register(n)), Some(Kind::Register(m))) => match (host(n), host(m)) {
            (Some(to), _) => e.asm.mov(size, to, place(m)),
            (None, Some(from)) if size != 4 => e.asm.store(size, home(n), from),
            (None, _) => {
                e.asm.mov(size, TEMP, place(m));
                write_home(e, n, size);
            }
        },
        (Some(Kind::Register(_)), Some(Kind::Memory)) => {
            into_register(e, instruction, op, false, None, |e, size, to, from| {
                e.asm.mov(size, to, from);
            });
        }
        (Some(Kind::Memory), source) => {
            let misses = e.operand(instruction, Access::Write, size);
            match source {
                Some(Kind::Immediate(value)) => {
                    e.asm.store_imm(size, Rm::Mem(ADDRESS, 0), value);
                }
                Some(Kind::Register(n)) => {
                    let register = read(e, n, size);
                    e.asm.store(size, Rm::Mem(ADDRESS, 0), register);
                }
                _ => {}
            }
            e.after_store(op, size);
            e.interpreted(misses, op);
        }
        // An immediate, of up to 64 bits.
        (Some(Kind::Register(n)), _) => {
            let value = instruction.immediate(1);
            match (host(n), size) {
                (Some(to), 8) => e.asm.mov_imm(to, value),
                (Some(to), 4) => e.asm.mov_imm(to, value & 0xffff_ffff),
                (None, 4 | 8) => {
                    e.asm.mov_imm(TEMP, if size == 8 { value } else { value & 0xffff_ffff });
                    write_home(e, n, size);
                }
                _ => e.asm.store_imm(size, place(n), value as i32),
            }
        }
        _ => {}
    }
}

pub(super) fn emit_extend(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let from_size = size_of_operand(instruction, 1);
    let signed = instruction.mnemonic() != Mnemonic::Movzx;
    into_register(e, instruction, op, false, Some(from_size), |e, size, to, from| {
        let opcode = match (from_size, signed) {
            (1, false) => 0xb6,
            (2, false) => 0xb7,
            (1, true) => 0xbe,
            (2, true) => 0xbf,
            _ => return e.asm.raw(size, &[0x63], to, from),
        };
        if from_size == 1 {
            e.asm.raw_byte(size, &[0x0f, opcode], to, from);
        } else {
            e.asm.raw(size, &[0x0f, opcode], to, from);
        }
    });
}

/// CBW, CWDE, CDQE: RAX is sign-extended from half of `size` bytes.
pub(super) fn emit_extend_accumulator(e: &mut Emitter<'_>, size: Size) {
    match size {
        2 => e.asm.raw_byte(2, &[0x0f, 0xbe], ACCUMULATOR, ACCUMULATOR),
        4 => e.asm.raw(4, &[0x0f, 0xbf], ACCUMULATOR, ACCUMULATOR),
        _ => e.asm.raw(8, &[0x63], ACCUMULATOR, ACCUMULATOR),
    }
}

/// CWD, CDQ, CQO: the sign of RAX fills RDX.
pub(super) fn emit_sign(e: &mut Emitter<'_>, size: Size) {
    e.asm.mov(8, TEMP, FLAGS);
    e.asm.mov(8, RAX, ACCUMULATOR);
    match size {
        2 => e.asm.bytes(&[0x66, 0x99]),
        4 => e.asm.bytes(&[0x99]),
        _ => e.asm.bytes(&[0x48, 0x99]),
    }
    e.asm.mov(8, FLAGS, TEMP);
}

pub(super) fn emit_lea(e: &mut Emitter<'_>, instruction: &Instruction) {
    let size = size_of_operand(instruction, 0);
    let (Some(Kind::Register(n)), Some(address)) = (kind(instruction, 0), address(instruction))
    else {
        return;
    };
    match host(n) {
        Some(to) => e.effective(&address, to, size),
        None => {
            e.effective(&address, TEMP, size);
            write_home(e, n, size);
        }
    }
}

pub(super) fn emit_bswap(e: &mut Emitter<'_>, instruction: &Instruction) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    let register = host(n).unwrap_or(TEMP);
    if host(n).is_none() {
        e.asm.mov(size, TEMP, home(n));
    }
    e.asm.bswap(size, register);
    if host(n).is_none() {
        write_home(e, n, size);
    }
}
