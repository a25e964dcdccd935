//! The instructions that are translated.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use crate::asm::{Jump, R10, RBP, Reg, Rm, Size};
use crate::block::Emitter;
use crate::memory::{Access, is_simple};
use crate::registers::{ADDRESS, START, TEMP, TEMP2, home, host, number, place};

const NOT_EQUAL: u8 = 5;
const CMP: u8 = 7;

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Register(u8),
    Memory,
    Immediate(i32),
}

fn kind(instruction: &Instruction, n: u32) -> Option<Kind> {
    if n >= instruction.op_count() {
        return None;
    }
    match instruction.op_kind(n) {
        OpKind::Register => number(instruction.op_register(n)).map(Kind::Register),
        OpKind::Memory if is_simple(instruction) => Some(Kind::Memory),
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

fn size_of_operand(instruction: &Instruction, n: u32) -> Size {
    match instruction.op_kind(n) {
        OpKind::Register => instruction.op_register(n).size() as Size,
        OpKind::Memory => instruction.memory_size().size() as Size,
        _ => 8,
    }
}

/// Number of a binary operation in opcodes.
fn binary(mnemonic: Mnemonic) -> Option<u8> {
    Some(match mnemonic {
        Mnemonic::Add => 0,
        Mnemonic::Or => 1,
        Mnemonic::Adc => 2,
        Mnemonic::Sbb => 3,
        Mnemonic::And => 4,
        Mnemonic::Sub => 5,
        Mnemonic::Xor => 6,
        Mnemonic::Cmp => CMP,
        _ => return None,
    })
}

/// Number of a shift or rotation in opcodes.
fn shift(mnemonic: Mnemonic) -> Option<u8> {
    Some(match mnemonic {
        Mnemonic::Rol => 0,
        Mnemonic::Ror => 1,
        Mnemonic::Shl => 4,
        Mnemonic::Shr => 5,
        Mnemonic::Sar => 7,
        _ => return None,
    })
}

/// Opcode and extension of an operation on one operand.
fn unary(mnemonic: Mnemonic) -> Option<(u8, u8)> {
    Some(match mnemonic {
        Mnemonic::Inc => (0xfe, 0),
        Mnemonic::Dec => (0xfe, 1),
        Mnemonic::Not => (0xf6, 2),
        Mnemonic::Neg => (0xf6, 3),
        _ => return None,
    })
}

/// Number of a condition in opcodes.
fn condition(instruction: &Instruction) -> u8 {
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

fn is_setcc(mnemonic: Mnemonic) -> bool {
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

fn is_cmov(mnemonic: Mnemonic) -> bool {
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
    if binary(mnemonic).is_some() || mnemonic == M::Test {
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
        M::Lea => matches!(first, Some(Register(_))) && is_simple(instruction) && wide(),
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
    use Mnemonic::{Call, Jmp, Leave, Pop, Push, Ret};
    let memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
        && instruction.mnemonic() != Mnemonic::Lea
        && !matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Reservednop);
    memory
        || instruction.is_jcc_short_or_near()
        || matches!(instruction.mnemonic(), Call | Jmp | Leave | Pop | Push | Ret)
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
        M::Test => emit_test(e, instruction, op),
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

/// Before the flags are overwritten by a look into the TLB.
fn before_probe(e: &mut Emitter<'_>) {
    // An instruction that may be left wants all flags before it.
    e.save_flags(true);
}

/// Does `operate` to operand 0, a register or memory.
fn modify(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    needs_flags: bool,
    sets_flags: bool,
    operate: impl FnOnce(&mut Emitter<'_>, Size, Rm),
) {
    let size = size_of_operand(instruction, 0);
    match kind(instruction, 0) {
        Some(Kind::Register(n)) => {
            if needs_flags {
                e.load_flags();
            }
            match (host(n), size) {
                (None, 4) => {
                    e.asm.mov(4, TEMP, home(n));
                    operate(e, 4, TEMP.into());
                    e.asm.store(8, home(n), TEMP);
                }
                _ => operate(e, size, place(n)),
            }
            if sets_flags {
                e.flags_set();
            }
        }
        _ => {
            before_probe(e);
            let misses = e.operand(instruction, Access::Write, size);
            if needs_flags {
                e.load_flags();
            }
            e.asm.mov(size, TEMP, Rm::Mem(ADDRESS, 0));
            operate(e, size, TEMP.into());
            e.asm.store(size, Rm::Mem(ADDRESS, 0), TEMP);
            if sets_flags {
                e.flags_set();
            }
            stored(e);
            e.interpreted(misses, op);
        }
    }
}

/// After a store: another look at the tracker, with the flags in memory if anybody wants them.
fn stored(e: &mut Emitter<'_>) {
    let wanted = e.wanted != 0;
    e.save_flags(wanted);
    e.after_store();
}

fn emit_binary(
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

/// A register to read guest register `n` from: its own, or `TEMP`.
fn read(e: &mut Emitter<'_>, n: u8, size: Size) -> Reg {
    host(n).unwrap_or_else(|| {
        e.asm.mov(size.max(4), TEMP, home(n));
        TEMP
    })
}

/// Compares guest register `n` with operand 1, a register or memory.
fn compare(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    n: u8,
    operate: impl FnOnce(&mut Emitter<'_>, Size, Reg, Rm),
) {
    let size = size_of_operand(instruction, 0);
    match kind(instruction, 1) {
        Some(Kind::Register(m)) => {
            let register = read(e, n, size);
            operate(e, size, register, place(m));
            e.flags_set();
        }
        _ => {
            before_probe(e);
            let misses = e.operand(instruction, Access::Read, size);
            let register = read(e, n, size);
            operate(e, size, register, Rm::Mem(ADDRESS, 0));
            e.flags_set();
            e.interpreted(misses, op);
        }
    }
}

/// Does `operate` on register operand 0 and operand 1, a register or memory of `source_size` bytes
/// (that of operand 0 without one).
fn into_register(
    e: &mut Emitter<'_>,
    instruction: &Instruction,
    op: u64,
    needs_flags: bool,
    source_size: Option<Size>,
    operate: impl FnOnce(&mut Emitter<'_>, Size, Reg, Rm),
) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    let memory = kind(instruction, 1) == Some(Kind::Memory);
    let mut misses = Vec::new();
    let from = if memory {
        before_probe(e);
        misses = e.operand(instruction, Access::Read, source_size.unwrap_or(size));
        Rm::Mem(ADDRESS, 0)
    } else {
        match kind(instruction, 1) {
            Some(Kind::Register(m)) => place(m),
            _ => return,
        }
    };
    if needs_flags {
        e.load_flags();
    }
    match host(n) {
        Some(to) => operate(e, size, to, from),
        None => {
            e.asm.mov(8, TEMP, home(n));
            operate(e, size, TEMP, from);
            // A result of 32 bits has cleared the upper half.
            e.asm.store(if size == 4 { 8 } else { size }, home(n), TEMP);
        }
    }
    if memory {
        e.interpreted(misses, op);
    }
}

fn emit_test(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
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

fn emit_mov(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let size = size_of_operand(instruction, 0);
    match (kind(instruction, 0), kind(instruction, 1)) {
        (Some(Kind::Register(n)), Some(Kind::Register(m))) => match (host(n), host(m)) {
            (Some(to), _) => e.asm.mov(size, to, place(m)),
            (None, Some(from)) if size != 4 => e.asm.store(size, home(n), from),
            (None, _) => {
                e.asm.mov(size, TEMP, place(m));
                e.asm.store(if size == 4 { 8 } else { size }, home(n), TEMP);
            }
        },
        (Some(Kind::Register(_)), Some(Kind::Memory)) => {
            into_register(e, instruction, op, false, None, |e, size, to, from| {
                e.asm.mov(size, to, from);
            });
        }
        (Some(Kind::Memory), source) => {
            before_probe(e);
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
            e.after_store();
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
                    e.asm.store(8, home(n), TEMP);
                }
                _ => e.asm.store_imm(size, place(n), value as i32),
            }
        }
        _ => {}
    }
}

fn emit_extend(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
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

fn emit_lea(e: &mut Emitter<'_>, instruction: &Instruction) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    match host(n) {
        Some(to) => e.effective(instruction, to, size),
        None => {
            e.effective(instruction, ADDRESS, size);
            e.asm.store(8, home(n), ADDRESS);
        }
    }
}

fn emit_xchg(e: &mut Emitter<'_>, instruction: &Instruction) {
    let size = size_of_operand(instruction, 0);
    let (Some(Kind::Register(a)), Some(Kind::Register(b))) =
        (kind(instruction, 0), kind(instruction, 1))
    else {
        return;
    };
    e.asm.mov(size, TEMP, place(a));
    e.asm.mov(size, TEMP2, place(b));
    for (n, value) in [(a, TEMP2), (b, TEMP)] {
        match host(n) {
            Some(to) => e.asm.mov(size, to, value),
            None => e.asm.store(8, home(n), value),
        }
    }
}

fn emit_bswap(e: &mut Emitter<'_>, instruction: &Instruction) {
    let size = size_of_operand(instruction, 0);
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    let register = host(n).unwrap_or(TEMP);
    if host(n).is_none() {
        e.asm.mov(size, TEMP, home(n));
    }
    let rex = 0x40 | u8::from(size == 8) << 3 | register.0 >> 3;
    e.asm.bytes(&[rex, 0x0f, 0xc8 | register.0 & 7]);
    if host(n).is_none() {
        e.asm.store(8, home(n), TEMP);
    }
}

fn emit_multiply(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
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

fn emit_bt(e: &mut Emitter<'_>, instruction: &Instruction, needs_flags: bool) {
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

fn emit_setcc(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
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

const STACK: Reg = R10;

fn emit_push(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
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

fn emit_pop(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    let Some(Kind::Register(n)) = kind(instruction, 0) else { return };
    before_probe(e);
    e.asm.mov(8, ADDRESS, STACK);
    let misses = e.probe(Access::Read, 8);
    match host(n) {
        Some(to) => e.asm.mov(8, to, Rm::Mem(ADDRESS, 0)),
        None => {
            e.asm.mov(8, TEMP, Rm::Mem(ADDRESS, 0));
            e.asm.store(8, home(n), TEMP);
        }
    }
    e.asm.lea(8, STACK, Rm::Mem(STACK, 8));
    e.interpreted(misses, op);
}

fn emit_leave(e: &mut Emitter<'_>, op: u64) {
    before_probe(e);
    e.asm.mov(8, ADDRESS, RBP);
    let misses = e.probe(Access::Read, 8);
    e.asm.lea(8, STACK, Rm::Mem(RBP, 8));
    e.asm.mov(8, RBP, Rm::Mem(ADDRESS, 0));
    e.interpreted(misses, op);
}

/// Goes to the address in `TEMP`, or has the interpreter fault if it is not canonical.
fn jump_to_temp(e: &mut Emitter<'_>, mut misses: Vec<Jump>, op: u64) {
    misses.extend(not_canonical(e));
    e.asm.mov(8, START, TEMP);
    e.asm.jmp_to(e.stubs.dispatch);
    e.interpreted(misses, op);
    // What the interpreter did has left the block.
    e.asm.jmp_to(e.stubs.leave);
}

fn not_canonical(e: &mut Emitter<'_>) -> Option<Jump> {
    e.asm.mov(8, TEMP2, TEMP);
    e.asm.shift_imm(8, 4, TEMP2, 16);
    e.asm.shift_imm(8, 7, TEMP2, 16);
    e.asm.alu(8, CMP, TEMP2, TEMP);
    Some(e.asm.jcc(NOT_EQUAL))
}

fn emit_jmp(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    before_probe(e);
    match kind(instruction, 0) {
        Some(Kind::Register(n)) => {
            e.asm.mov(8, TEMP, place(n));
            jump_to_temp(e, Vec::new(), op);
        }
        Some(Kind::Memory) => {
            let misses = e.operand(instruction, Access::Read, 8);
            e.asm.mov(8, TEMP, Rm::Mem(ADDRESS, 0));
            jump_to_temp(e, misses, op);
        }
        _ => {
            e.asm.lea(8, START, Rm::Mem(START, instruction.near_branch64() as i64 as i32));
            e.asm.jmp_to(e.stubs.dispatch);
        }
    }
}

fn emit_call(e: &mut Emitter<'_>, instruction: &Instruction, op: u64) {
    before_probe(e);
    let next = Rm::Mem(START, instruction.next_ip() as i32);
    let indirect = match kind(instruction, 0) {
        Some(Kind::Register(n)) => Some(n),
        _ => None,
    };
    let mut misses = Vec::new();
    if let Some(n) = indirect {
        e.asm.mov(8, TEMP, place(n));
        misses.extend(not_canonical(e));
    }
    e.asm.lea(8, ADDRESS, Rm::Mem(STACK, -8));
    misses.extend(e.probe(Access::Write, 8));
    e.asm.lea(8, TEMP, next);
    e.asm.store(8, Rm::Mem(ADDRESS, 0), TEMP);
    e.asm.lea(8, STACK, Rm::Mem(STACK, -8));
    match indirect {
        // Before the look at the tracker, which may call.
        Some(n) if n == 4 => {
            // The target is RSP before the push.
            e.asm.lea(8, START, Rm::Mem(STACK, 8));
        }
        Some(n) => e.asm.mov(8, START, place(n)),
        None => e.asm.lea(8, START, Rm::Mem(START, instruction.near_branch64() as i64 as i32)),
    }
    e.after_store();
    e.asm.jmp_to(e.stubs.dispatch);
    e.interpreted(misses, op);
    e.asm.jmp_to(e.stubs.leave);
}

fn emit_ret(e: &mut Emitter<'_>, op: u64) {
    before_probe(e);
    e.asm.mov(8, ADDRESS, STACK);
    let mut misses = e.probe(Access::Read, 8);
    e.asm.mov(8, TEMP, Rm::Mem(ADDRESS, 0));
    misses.extend(not_canonical(e));
    e.asm.lea(8, STACK, Rm::Mem(STACK, 8));
    e.asm.mov(8, START, TEMP);
    e.asm.jmp_to(e.stubs.dispatch);
    e.interpreted(misses, op);
    e.asm.jmp_to(e.stubs.leave);
}
