//! FLD, FILD, FBLD and the constants.

use cloister_float::{self as float, Env, F80, Flags, Format, Rounding};
use iced_x86::MemorySize;

use super::report::{begin, finish, finish_quiet, overflow};
use crate::cpu::Cpu;
use crate::exec::table::{always, choose, rewrite, rows};
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Fld => choose(|instruction, op| match instruction.memory_size() {
        _ if op.mem_operand == NO_MEMORY => fld_register as Handler,
        MemorySize::Float32 => fld_float::<u32>,
        MemorySize::Float64 => fld_float::<u64>,
        _ => fld_extended,
    }),
    Fild => choose(|instruction, _| match instruction.memory_size() {
        MemorySize::Int16 => fild_16 as Handler,
        MemorySize::Int32 => fild_32,
        _ => fild_64,
    }),
    Fbld => always(fbld),
    Fld1 => rewrite(|_, _, op| constant(op, 0)),
    Fldl2t => rewrite(|_, _, op| constant(op, 1)),
    Fldl2e => rewrite(|_, _, op| constant(op, 2)),
    Fldpi => rewrite(|_, _, op| constant(op, 3)),
    Fldlg2 => rewrite(|_, _, op| constant(op, 4)),
    Fldln2 => rewrite(|_, _, op| constant(op, 5)),
    Fldz => rewrite(|_, _, op| constant(op, 6)),
}

/// Which of [`CONSTANTS`] it is, is kept in [`Op::extra`].
fn constant(op: Op, index: u32) -> Option<Op> {
    Some(Op { run: fld_constant, extra: index, ..op })
}

const fn constant_index(op: &Op) -> usize {
    op.extra as usize % CONSTANTS.len()
}

/// Pushes a value that came about without an exception.
#[inline(always)]
fn push_quiet(cpu: &mut Cpu, op: &Op, value: F80) -> Exec {
    if !cpu.arch.fpu.is_empty(7) {
        return push_overflow(cpu, op);
    }
    finish_quiet(cpu, op);
    cpu.arch.fpu.push(value);
    Ok(())
}

#[cold]
fn push_overflow(cpu: &mut Cpu, op: &Op) -> Exec {
    if overflow(cpu, op) {
        cpu.arch.fpu.push(F80::INDEFINITE);
    }
    Ok(())
}

extern "C" fn fld_register(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    if cpu.arch.fpu.is_empty(op.dst) {
        if super::report::underflow(cpu, op) {
            cpu.arch.fpu.push(F80::INDEFINITE);
        }
        return Ok(());
    }
    let value = cpu.arch.fpu.st(op.dst);
    push_quiet(cpu, op, value)
}

extern "C" fn fld_float<T: Format + crate::mem::Plain>(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source: T = cpu.load_operand(op)?;
    if !cpu.arch.fpu.is_empty(7) {
        return push_overflow(cpu, op);
    }
    let mut env: Env = cpu.arch.fpu.env();
    let value: F80 = float::convert(&mut env, source);
    finish(cpu, op, &env);
    // An unmasked denormal operand is loaded all the same (SDM Vol. 1, 8.5.2).
    if !env.pending.contains(Flags::IE) {
        cpu.arch.fpu.push(value);
    }
    Ok(())
}

extern "C" fn fld_extended(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let value = F80::from_bytes(load_ten(cpu, op)?);
    push_quiet(cpu, op, value)
}

/// Reads ten bytes, whose alignment is that of eight (SDM Vol. 3A, table 6-7).
fn load_ten(cpu: &mut Cpu, op: &Op) -> Exec<[u8; 10]> {
    let mut bytes = [0; 10];
    let address = cpu.linear(op, bytes.len(), AccessKind::Read)?;
    cpu.check_alignment(address, 8)?;
    let mode = cpu.run.mmu_mode;
    cpu.read_bytes(address, &mut bytes, mode)?;
    Ok(bytes)
}

extern "C" fn fild_16(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = cpu.load_operand::<u16>(op)? as i16;
    push_integer(cpu, op, source.into())
}

extern "C" fn fild_32(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = cpu.load_operand::<u32>(op)? as i32;
    push_integer(cpu, op, source.into())
}

extern "C" fn fild_64(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = cpu.load_operand::<u64>(op)? as i64;
    push_integer(cpu, op, source)
}

fn push_integer(cpu: &mut Cpu, op: &Op, source: i64) -> Exec {
    let mut env = cpu.arch.fpu.env();
    // Every 64-bit integer is exact.
    let value = float::from_i64(&mut env, source);
    push_quiet(cpu, op, value)
}

extern "C" fn fbld(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let value = float::bcd_to_f80(load_ten(cpu, op)?);
    push_quiet(cpu, op, value)
}

/// The constants, as they are when rounded down or toward zero, and the increments of the
/// significand when rounded to nearest and up (SDM Vol. 2, FLDPI).
const CONSTANTS: [(F80, u64, u64); 7] = [
    (F80::ONE, 0, 0),
    (F80::new(0x4000, 0xd49a_784b_cd1b_8afe), 0, 1),
    (F80::new(0x3fff, 0xb8aa_3b29_5c17_f0bb), 1, 1),
    (F80::new(0x4000, 0xc90f_daa2_2168_c234), 1, 1),
    (F80::new(0x3ffd, 0x9a20_9a84_fbcf_f798), 1, 1),
    (F80::new(0x3ffe, 0xb172_17f7_d1cf_79ab), 1, 1),
    (F80::ZERO, 0, 0),
];

extern "C" fn fld_constant(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let (mut value, nearest, up) = CONSTANTS[constant_index(op)];
    value.mantissa += match cpu.arch.fpu.env().rounding {
        Rounding::Nearest => nearest,
        Rounding::Up => up,
        Rounding::Down | Rounding::Zero => 0,
    };
    push_quiet(cpu, op, value)
}
