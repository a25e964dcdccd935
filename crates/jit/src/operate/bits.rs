//! Single bits: BT, BTS, BTR, BTC, BSF, BSR.

use iced_x86::{Instruction, Mnemonic};

use super::operands::{Kind, kind, size_of_operand};
use super::shape::{aligned_for_lock, into_register, lock, read, write_home};
use crate::asm::alu::AND;
use crate::asm::shift::SAR;
use crate::asm::{Reg, Rm};
use crate::block::Emitter;
use crate::memory::Access;
use crate::registers::{ADDRESS, TEMP, TEMP2, home, host, place};

/// Numbers of operations on a bit in opcodes.
const BT: u8 = 4;

/// Number of an operation on a bit.
fn operation(mnemonic: Mnemonic) -> u8 {
    match mnemonic {
        Mnemonic::Bt => BT,
        Mnemonic::Bts => 5,
        Mnemonic::Btr => 6,
        _ => 7,
    }
}

/// Opcode of the operation by a bit number in a register.
fn by_register(operation: u8) -> [u8; 2] {
    [0x0f, 0x83 | operation << 3]
}

pub(super) fn emit_bit(e: &mut Emitter<'_>, instruction: &Instruction, op: u64, needs_flags: bool) {
    let size = size_of_operand(instruction, 0);
    let operation = operation(instruction.mnemonic());
    match (kind(instruction, 0), kind(instruction, 1)) {
        (Some(Kind::Register(n)), Some(Kind::Immediate(bit))) => {
            if needs_flags {
                e.load_flags();
            }
            let value = read(e, n, size);
            e.asm.raw(size, &[0x0f, 0xba], Reg(operation), value);
            e.asm.bytes(&[bit as u8 & (size * 8 - 1)]);
            if host(n).is_none() && operation != BT {
                write_home(e, n, size);
            }
            e.flags_set();
        }
        (Some(Kind::Register(n)), Some(Kind::Register(m))) => {
            if needs_flags {
                e.load_flags();
            }
            let bit = host(m).unwrap_or_else(|| {
                e.asm.mov(size, TEMP2, home(m));
                TEMP2
            });
            // A register, for in memory the bit would be anywhere.
            let value = read(e, n, size);
            e.asm.raw(size, &by_register(operation), bit, value);
            if host(n).is_none() && operation != BT {
                write_home(e, n, size);
            }
            e.flags_set();
        }
        (_, by) => in_memory(e, instruction, op, by, operation, needs_flags),
    }
}

fn in_memory(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    by: Option<Kind>,
    operation: u8,
    needs_flags: bool,
) {
    let size = size_of_operand(instruction, 0);
    let access = if operation == BT { Access::Read } else { Access::Write };
    e.address_of(instruction);
    if let Some(Kind::Register(n)) = by {
        // The operand that has the bit: the offset is signed.
        e.lose_flags();
        if size == 4 {
            e.asm.raw(8, &[0x63], TEMP, place(n));
        } else {
            e.asm.mov(8, TEMP, place(n));
        }
        let bits = size * 8;
        e.asm.shift_imm(8, SAR, TEMP, bits.trailing_zeros() as u8);
        e.asm.lea(8, ADDRESS, Rm::Index(ADDRESS, TEMP, size.trailing_zeros() as u8, 0));
    }
    let mut misses = e.probe(access, size);
    let locked = instruction.has_lock_prefix();
    if locked {
        aligned_for_lock(e, size, &mut misses);
    }
    if let Some(Kind::Register(n)) = by {
        e.asm.mov(4, TEMP, place(n));
        e.asm.alu_imm(4, AND, TEMP, i32::from(size) * 8 - 1);
    }
    if needs_flags {
        e.load_flags();
    }
    lock(e, locked);
    match by {
        Some(Kind::Immediate(bit)) => {
            e.asm.raw(size, &[0x0f, 0xba], Reg(operation), Rm::Mem(ADDRESS, 0));
            e.asm.bytes(&[bit as u8 & (size * 8 - 1)]);
        }
        _ => e.asm.raw(size, &by_register(operation), TEMP, Rm::Mem(ADDRESS, 0)),
    }
    e.flags_set();
    if access == Access::Write {
        e.after_store(op, size);
    }
    e.interpreted(misses, op);
}

pub(super) fn emit_scan(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let opcode = [0x0f, if instruction.mnemonic() == Mnemonic::Bsf { 0xbc } else { 0xbd }];
    into_register(e, instruction, op, false, None, |e, size, to, from| {
        e.asm.raw(size, &opcode, to, from);
        e.flags_set();
    });
}
