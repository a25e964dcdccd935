//! What the operands and the mnemonic of an instruction say to the emitters.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::asm::shift::{RCL, RCR, ROL, ROR, SAR, SHL, SHR};
use crate::asm::{Size, alu};
use crate::memory::address;
use crate::registers::number;

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Register(u8),
    Memory,
    Immediate(i32),
}

pub(super) fn kind(instruction: &Instruction, n: u32) -> Option<Kind> {
    if n >= instruction.op_count() {
        return None;
    }
    match instruction.op_kind(n) {
        OpKind::Register => number(instruction.op_register(n)).map(Kind::Register),
        OpKind::Memory if address(instruction).is_some() => Some(Kind::Memory),
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => {
            let value = instruction.immediate(n);
            let value = match size_of_operand(instruction, 0) {
                // As its low bytes are.
                1 => i64::from(value as i8),
                2 => i64::from(value as i16),
                4 => i64::from(value as i32),
                _ => value as i64,
            };
            i32::try_from(value).ok().map(Kind::Immediate)
        }
        _ => None,
    }
}

pub(super) fn size_of_operand(instruction: &Instruction, n: u32) -> Size {
    match instruction.op_kind(n) {
        OpKind::Register => instruction.op_register(n).size() as Size,
        OpKind::Memory => instruction.memory_size().size() as Size,
        _ => 8,
    }
}

/// Number of a binary operation that writes its first operand.
pub(super) fn binary(mnemonic: Mnemonic) -> Option<u8> {
    Some(match mnemonic {
        Mnemonic::Add => alu::ADD,
        Mnemonic::Or => alu::OR,
        Mnemonic::Adc => alu::ADC,
        Mnemonic::Sbb => alu::SBB,
        Mnemonic::And => alu::AND,
        Mnemonic::Sub => alu::SUB,
        Mnemonic::Xor => alu::XOR,
        _ => return None,
    })
}

/// Number of a shift or rotation in opcodes.
pub(super) fn shift(mnemonic: Mnemonic) -> Option<u8> {
    Some(match mnemonic {
        Mnemonic::Rol => ROL,
        Mnemonic::Ror => ROR,
        Mnemonic::Rcl => RCL,
        Mnemonic::Rcr => RCR,
        Mnemonic::Shl => SHL,
        Mnemonic::Shr => SHR,
        Mnemonic::Sar => SAR,
        _ => return None,
    })
}

/// Opcode and extension of an operation on one operand.
pub(super) fn unary(mnemonic: Mnemonic) -> Option<(u8, u8)> {
    Some(match mnemonic {
        Mnemonic::Inc => (0xfe, 0),
        Mnemonic::Dec => (0xfe, 1),
        Mnemonic::Not => (0xf6, 2),
        Mnemonic::Neg => (0xf6, 3),
        _ => return None,
    })
}

/// Number of a condition in opcodes.
pub(super) fn condition(instruction: &Instruction) -> u8 {
    use iced_x86::ConditionCode as C;
    match instruction.condition_code() {
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        _ => 15,
    }
}

pub(super) fn is_setcc(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl, Setle, Setne, Setno, Setnp, Setns, Seto,
        Setp, Sets,
    };
    matches!(
        mnemonic,
        Seta | Setae
            | Setb
            | Setbe
            | Sete
            | Setg
            | Setge
            | Setl
            | Setle
            | Setne
            | Setno
            | Setnp
            | Setns
            | Seto
            | Setp
            | Sets
    )
}

pub(super) fn is_cmov(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp,
        Cmovns, Cmovo, Cmovp, Cmovs,
    };
    matches!(
        mnemonic,
        Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
    )
}
