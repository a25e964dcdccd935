//! The instructions that are translated.

mod arithmetic;
mod bits;
mod exchange;
mod operands;
mod shape;
mod stack;
mod transfer;
pub(crate) mod vector;

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use self::arithmetic::{
    emit_binary, emit_carry, emit_comparison, emit_divide, emit_double_shift, emit_multiply,
    emit_setcc,
};
use self::bits::{emit_bit, emit_scan};
use self::exchange::{emit_cmpxchg, emit_cmpxchg16b, emit_xadd, emit_xchg, has_cmpxchg16b};
use self::operands::{
    Kind, binary, condition, is_cmov, is_setcc, kind, shift, size_of_operand, unary,
};
use self::shape::{into_register, lock, modify};
use self::stack::{emit_call, emit_jmp, emit_leave, emit_pop, emit_push, emit_ret};
pub(crate) use self::stack::{emit_run, pop_return_address, run_length};
use self::transfer::{
    emit_bswap, emit_extend, emit_extend_accumulator, emit_lea, emit_mov, emit_sign,
};
use crate::block::Emitter;
use crate::memory::address;

/// Whether translated code does the instruction itself.
pub(crate) fn is_supported(instruction: &Instruction) -> bool {
    use Kind::{Immediate, Memory, Register};
    use Mnemonic as M;
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
            // Through the carry, narrow operands are rotated by the count's remainder, which may be 0.
            Some(Immediate(count)) => {
                count & bits != 0
                    && matches!(first, Some(Register(_) | Memory))
                    && (wide() || !matches!(mnemonic, M::Rcl | M::Rcr))
            }
            Some(Register(_)) => matches!(first, Some(Register(_) | Memory)),
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
        M::Xchg => matches!((first, second), (Some(Register(_) | Memory), Some(Register(_)))),
        M::Xadd | M::Cmpxchg => {
            matches!((first, second), (Some(Memory), Some(Register(_))))
        }
        M::Cmpxchg16b => matches!(first, Some(Memory)) && has_cmpxchg16b(),
        M::Bswap => matches!(first, Some(Register(_))) && wide(),
        M::Cwd | M::Cdq | M::Cqo | M::Cbw | M::Cwde | M::Cdqe => true,
        M::Imul => {
            instruction.op_count() == 1 && matches!(first, Some(Register(_) | Memory))
                || wide()
                    && match instruction.op_count() {
                        1 => false,
                        2 => matches!(second, Some(Register(_) | Memory)),
                        _ => {
                            matches!(second, Some(Register(_) | Memory))
                                && matches!(kind(instruction, 2), Some(Immediate(_)))
                        }
                    }
        }
        M::Mul => matches!(first, Some(Register(_) | Memory)),
        M::Div | M::Idiv => wide() && matches!(first, Some(Register(_) | Memory)),
        M::Shld | M::Shrd => {
            wide()
                && matches!(first, Some(Register(_) | Memory))
                && matches!(second, Some(Register(_)))
                && match kind(instruction, 2) {
                    Some(Immediate(count)) => {
                        count & (i32::from(size_of_operand(instruction, 0)) * 8 - 1) != 0
                    }
                    count => count.is_some(),
                }
        }
        M::Bt | M::Bts | M::Btr | M::Btc => {
            wide()
                && matches!(first, Some(Register(_) | Memory))
                && matches!(second, Some(Register(_) | Immediate(_)))
        }
        M::Bsf | M::Bsr => {
            wide() && matches!((first, second), (Some(Register(_)), Some(Register(_) | Memory)))
        }
        M::Clc | M::Stc | M::Cmc | M::Lfence | M::Sfence | M::Mfence => true,
        M::Push => {
            instruction.stack_pointer_increment() == -8
                && (matches!(first, Some(Register(_))) && instruction.op0_register().is_gpr64()
                    || matches!(first, Some(Memory | Immediate(_))))
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
                || instruction.code() == Code::Call_rm64 && first.is_some()
        }
        M::Ret => instruction.code() == Code::Retnq,
        M::Nop => !instruction.has_rep_prefix(),
        M::Reservednop => true,
        _ => false,
    }
}

/// Whether the code may be left at a translated instruction.
pub(crate) fn may_leave(instruction: &Instruction) -> bool {
    use Mnemonic::{Call, Div, Idiv, Jmp, Lea, Leave, Nop, Pop, Push, Reservednop, Ret};
    match instruction.mnemonic() {
        Call | Div | Idiv | Jmp | Leave | Pop | Push | Ret => true,
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
        let locked = instruction.has_lock_prefix();
        return modify(e, instruction, op, needs_flags && sets, sets, |e, size, rm| {
            lock(e, locked);
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
        return e.branch(condition(instruction), instruction.near_branch64() as i64 as i32);
    }
    match mnemonic {
        M::Cmp | M::Test => emit_comparison(e, instruction, op),
        M::Mov => emit_mov(e, instruction, op),
        M::Movzx | M::Movsx | M::Movsxd => emit_extend(e, instruction, op),
        M::Lea => emit_lea(e, instruction),
        M::Xchg => emit_xchg(e, instruction, op),
        M::Xadd => emit_xadd(e, instruction, op),
        M::Cmpxchg => emit_cmpxchg(e, instruction, op),
        M::Cmpxchg16b => emit_cmpxchg16b(e, instruction, op, needs_flags),
        M::Bswap => emit_bswap(e, instruction),
        M::Cwd => emit_sign(e, 2),
        M::Cdq => emit_sign(e, 4),
        M::Cqo => emit_sign(e, 8),
        M::Cbw => emit_extend_accumulator(e, 2),
        M::Cwde => emit_extend_accumulator(e, 4),
        M::Cdqe => emit_extend_accumulator(e, 8),
        M::Imul | M::Mul => emit_multiply(e, instruction, op),
        M::Div | M::Idiv => emit_divide(e, instruction, op),
        M::Shld | M::Shrd => emit_double_shift(e, instruction, op, needs_flags),
        M::Bt | M::Bts | M::Btr | M::Btc => emit_bit(e, instruction, op, needs_flags),
        M::Bsf | M::Bsr => emit_scan(e, instruction, op),
        M::Clc | M::Stc | M::Cmc => emit_carry(e, instruction, needs_flags),
        M::Lfence => e.asm.bytes(&[0x0f, 0xae, 0xe8]),
        M::Mfence => e.asm.bytes(&[0x0f, 0xae, 0xf0]),
        M::Sfence => e.asm.bytes(&[0x0f, 0xae, 0xf8]),
        M::Push => emit_push(e, instruction, op),
        M::Pop => emit_pop(e, instruction, op),
        M::Leave => emit_leave(e, op),
        M::Jmp => emit_jmp(e, instruction, op),
        M::Call => emit_call(e, instruction, op),
        M::Ret => emit_ret(e, op),
        _ => {}
    }
}
