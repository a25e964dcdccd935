//! The instructions that are translated.

mod arithmetic;
mod operands;
mod shape;
mod stack;
mod transfer;
pub(crate) mod vector;

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use self::arithmetic::{emit_binary, emit_bt, emit_comparison, emit_multiply, emit_setcc};
use self::operands::{
    Kind, binary, condition, is_cmov, is_setcc, kind, shift, size_of_operand, unary,
};
use self::shape::{into_register, modify};
use self::stack::{emit_call, emit_jmp, emit_leave, emit_pop, emit_push, emit_ret};
use self::transfer::{emit_bswap, emit_extend, emit_lea, emit_mov, emit_xchg};
use crate::block::Emitter;
use crate::memory::address;

/// Whether translated code does the instruction itself.
pub(crate) fn is_supported(instruction: &Instruction) -> bool {
    use Kind::{Immediate, Memory, Register};
    use Mnemonic as M;
    if instruction.has_lock_prefix() {
        return false;
    }
    let (first, second) = (kind(instruction, 0), kind(instruction, 1));
    let pair = matches!(
        (first, second),
        (Some(Register(_)), Some(Register(_) | Memory | Immediate(_)))
            | (Some(Memory), Some(Register(_) | Immediate(_)))
    );
    let mnemonic = instruction.mnemonic();
    let wide = || matches!(size_of_operand(instruction, 0), 4 | 8);
    if binary(mnemonic).is_some() || matches!(mnemonic, M::Cmp | M::Test) {
        return pair;
    }
    if unary(mnemonic).is_some() {
        return matches!(first, Some(Register(_) | Memory));
    }
    if shift(mnemonic).is_some() {
        let bits = if size_of_operand(instruction, 0) == 8 { 63 } else { 31 };
        return match second {
            Some(Immediate(count)) => {
                count & bits != 0 && matches!(first, Some(Register(_) | Memory))
            }
            Some(Register(_)) => matches!(first, Some(Register(_))),
            _ => false,
        };
    }
    if is_setcc(mnemonic) {
        return matches!(first, Some(Register(_) | Memory));
    }
    if is_cmov(mnemonic) {
        return pair && wide();
    }
    if instruction.is_jcc_short_or_near() {
        return instruction.op0_kind() == OpKind::NearBranch64;
    }
    match mnemonic {
        M::Mov => {
            pair || matches!(first, Some(Register(_)))
                && instruction.op1_kind() == OpKind::Immediate64
        }
        M::Movzx | M::Movsx | M::Movsxd => {
            matches!((first, second), (Some(Register(_)), Some(Register(_) | Memory)))
        }
        M::Lea => matches!(first, Some(Register(_))) && address(instruction).is_some() && wide(),
        M::Xchg => matches!((first, second), (Some(Register(_)), Some(Register(_)))) && wide(),
        M::Bswap => matches!(first, Some(Register(_))) && wide(),
        M::Cdq | M::Cqo | M::Cdqe | M::Cwde => true,
        M::Imul => {
            wide()
                && match instruction.op_count() {
                    1 => matches!(first, Some(Register(_) | Memory)),
                    2 => matches!(second, Some(Register(_) | Memory)),
                    _ => {
                        matches!(second, Some(Register(_) | Memory))
                            && matches!(kind(instruction, 2), Some(Immediate(_)))
                    }
                }
        }
        M::Mul => wide() && matches!(first, Some(Register(_) | Memory)),
        M::Bt => wide() && matches!((first, second), (Some(Register(_)), Some(_))),
        M::Push => {
            instruction.stack_pointer_increment() == -8
                && (matches!(first, Some(Register(_))) && instruction.op0_register().is_gpr64()
                    || matches!(first, Some(Immediate(_))))
        }
        M::Pop => {
            instruction.stack_pointer_increment() == 8
                && matches!(first, Some(Register(n)) if n != 4)
                && instruction.op0_register().is_gpr64()
        }
        M::Leave => instruction.code() == Code::Leaveq,
        M::Jmp => {
            instruction.op0_kind() == OpKind::NearBranch64
                || instruction.code() == Code::Jmp_rm64 && first.is_some()
        }
        M::Call => {
            instruction.op0_kind() == OpKind::NearBranch64
                || instruction.code() == Code::Call_rm64 && matches!(first, Some(Register(_)))
        }
        M::Ret => instruction.code() == Code::Retnq,
        M::Nop => !instruction.has_rep_prefix(),
        M::Reservednop => true,
        _ => false,
    }
}

/// Whether the code may be left at a translated instruction.
pub(crate) fn may_leave(instruction: &Instruction) -> bool {
    use Mnemonic::{Call, Jmp, Lea, Leave, Nop, Pop, Push, Reservednop, Ret};
    match instruction.mnemonic() {
        Call | Jmp | Leave | Pop | Push | Ret => true,
        // They reach no memory.
        Lea | Nop | Reservednop => false,
        _ => {
            instruction.is_jcc_short_or_near()
                || (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
        }
    }
}

/// Emits a supported instruction. `needs_flags`: it reads flags, or leaves some as they are that are
/// wanted.
pub(crate) fn emit(e: &mut Emitter<'_>, instruction: &Instruction, op: u64, needs_flags: bool) {
    use Mnemonic as M;
    let mnemonic = instruction.mnemonic();
    if let Some(operation) = binary(mnemonic) {
        return emit_binary(e, instruction, op, operation, needs_flags);
    }
    if let Some((opcode, extension)) = unary(mnemonic) {
        let sets = mnemonic != M::Not;
        return modify(e, instruction, op, needs_flags && sets, sets, |e, size, rm| {
            e.asm.ext(size, opcode, extension, rm);
        });
    }
    if let Some(operation) = shift(mnemonic) {
        let count = kind(instruction, 1);
        return modify(e, instruction, op, needs_flags, true, |e, size, rm| match count {
            Some(Kind::Immediate(count)) => e.asm.shift_imm(size, operation, rm, count as u8),
            _ => e.asm.ext(size, 0xd2, operation, rm),
        });
    }
    if is_setcc(mnemonic) {
        return emit_setcc(e, instruction, op);
    }
    if is_cmov(mnemonic) {
        let opcode = [0x0f, 0x40 | condition(instruction)];
        return into_register(e, instruction, op, true, None, |e, size, to, from| {
            e.asm.raw(size, &opcode, to, from);
        });
    }
    if instruction.is_jcc_short_or_near() {
        e.load_flags();
        return e.branch(condition(instruction), instruction.near_branch64() as i64 as i32);
    }
    match mnemonic {
        M::Cmp | M::Test => emit_comparison(e, instruction, op),
        M::Mov => emit_mov(e, instruction, op),
        M::Movzx | M::Movsx | M::Movsxd => emit_extend(e, instruction, op),
        M::Lea => emit_lea(e, instruction),
        M::Xchg => emit_xchg(e, instruction),
        M::Bswap => emit_bswap(e, instruction),
        M::Cdq => e.asm.bytes(&[0x99]),
        M::Cqo => e.asm.bytes(&[0x48, 0x99]),
        M::Cwde => e.asm.bytes(&[0x98]),
        M::Cdqe => e.asm.bytes(&[0x48, 0x98]),
        M::Imul | M::Mul => emit_multiply(e, instruction, op),
        M::Bt => emit_bt(e, instruction, needs_flags),
        M::Push => emit_push(e, instruction, op),
        M::Pop => emit_pop(e, instruction, op),
        M::Leave => emit_leave(e, op),
        M::Jmp => emit_jmp(e, instruction, op),
        M::Call => emit_call(e, instruction, op),
        M::Ret => emit_ret(e, op),
        _ => {}
    }
}
