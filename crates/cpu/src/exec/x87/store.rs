//! FST, FSTP, FIST, FISTP, FISTTP and FBSTP.

use cloister_float::{self as float, Env, F80, Flags, Format, Rounding};
use iced_x86::{Instruction, MemorySize};

use super::report::{begin, finish, finish_quiet, underflow};
use crate::cpu::Cpu;
use crate::exec::table::{rewrite, rows};
use crate::exit::Exec;
use crate::mem::Plain;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, NO_MEMORY, Op};

/// [`Op::extra`]: ST(0) is popped at the end.
const POPS: u32 = 1;
/// [`Op::extra`]: an integer is rounded toward zero.
const TRUNCATES: u32 = 2;

rows! {
    Fst | Fist => rewrite(|i, _, op| form(i, op, 0)),
    Fstp | Fistp | Fbstp => rewrite(|i, _, op| form(i, op, POPS)),
    Fisttp => rewrite(|i, _, op| form(i, op, POPS | TRUNCATES)),
    Fstpnce => rewrite(|_, _, op| Some(Op { run: fstpnce, extra: POPS, ..op })),
}

fn form(instruction: &Instruction, op: Op, extra: u32) -> Option<Op> {
    let run = match instruction.memory_size() {
        _ if op.mem_operand == NO_MEMORY => fst_register as Handler,
        MemorySize::Float32 => fst_float::<u32>,
        MemorySize::Float64 => fst_float::<u64>,
        MemorySize::Int16 => fist_16,
        MemorySize::Int32 => fist_32,
        MemorySize::Int64 => fist_64,
        MemorySize::Bcd => fbstp,
        _ => fstp_extended,
    };
    Some(Op { run, extra, ..op })
}

fn pop_if_asked(cpu: &mut Cpu, op: &Op) {
    if op.extra & POPS != 0 {
        cpu.arch.fpu.pop();
    }
}

extern "C" fn fst_register(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    if !cpu.arch.fpu.is_empty(0) {
        finish_quiet(cpu, op);
        let value = cpu.arch.fpu.st(0);
        cpu.arch.fpu.set_st(op.dst, value);
        pop_if_asked(cpu, op);
    } else if underflow(cpu, op) {
        cpu.arch.fpu.set_st(op.dst, F80::INDEFINITE);
        pop_if_asked(cpu, op);
    }
    Ok(())
}

/// FSTPNCE (D9 D8+i), an undocumented alias of FSTP ST(i) that only pops an empty register.
extern "C" fn fstpnce(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    finish_quiet(cpu, op);
    if !cpu.arch.fpu.is_empty(0) {
        let value = cpu.arch.fpu.st(0);
        cpu.arch.fpu.set_st(op.dst, value);
    }
    cpu.arch.fpu.pop();
    Ok(())
}

/// Stores what `convert` makes of ST(0), or `indefinite` if it is empty. Nothing is stored or
/// popped if an unmasked exception other than PE arises (SDM Vol. 1, 8.5.4 and 8.5.5); Intel
/// processors do not look at the address then, so that a bad one does not fault.
#[inline(always)]
fn store<T: Plain>(
    cpu: &mut Cpu,
    op: &Op,
    indefinite: T,
    convert: impl FnOnce(&mut Env, F80) -> T,
) -> Exec {
    begin(cpu)?;
    let empty = cpu.arch.fpu.is_empty(0);
    let mut env = cpu.arch.fpu.env();
    let value = if empty {
        env.raise(Flags::IE);
        indefinite
    } else {
        convert(&mut env, cpu.arch.fpu.st(0))
    };
    let stores = env.pending.difference(Flags::PE).is_empty();
    if stores {
        cpu.store_operand(op, value)?;
    }
    if empty {
        underflow(cpu, op);
    } else {
        finish(cpu, op, &env);
    }
    if stores {
        pop_if_asked(cpu, op);
    }
    Ok(())
}

extern "C" fn fst_float<T: Format + Plain>(cpu: &mut Cpu, op: &Op) -> Exec {
    store(cpu, op, T::indefinite(), |env, value| float::convert::<F80, T>(env, value))
}

fn rounding(env: &Env, op: &Op) -> Rounding {
    if op.extra & TRUNCATES != 0 { Rounding::Zero } else { env.rounding }
}

extern "C" fn fist_16(cpu: &mut Cpu, op: &Op) -> Exec {
    store(cpu, op, i16::MIN as u16, |env, value| {
        float::to_i16(env, value, rounding(env, op)) as u16
    })
}

extern "C" fn fist_32(cpu: &mut Cpu, op: &Op) -> Exec {
    store(cpu, op, i32::MIN as u32, |env, value| {
        float::to_i32(env, value, rounding(env, op)) as u32
    })
}

extern "C" fn fist_64(cpu: &mut Cpu, op: &Op) -> Exec {
    store(cpu, op, i64::MIN as u64, |env, value| {
        float::to_i64(env, value, rounding(env, op)) as u64
    })
}

/// Stores ten bytes: eight, then two, as Intel processors do. The first store stays where the
/// second one faults.
fn store_ten(cpu: &mut Cpu, op: &Op, bytes: [u8; 10]) -> Exec {
    let mode = cpu.run.mmu_mode;
    let first = cpu.linear(op, 8, AccessKind::Write)?;
    cpu.write_bytes(first, &bytes[..8], mode)?;
    let second = cpu.linear_within(op, 8, 2, AccessKind::Write)?;
    cpu.write_bytes(second, &bytes[8..], mode)
}

extern "C" fn fstp_extended(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    if cpu.arch.fpu.is_empty(0) {
        return ten_underflow(cpu, op, F80::INDEFINITE.to_bytes());
    }
    store_ten(cpu, op, cpu.arch.fpu.st(0).to_bytes())?;
    finish_quiet(cpu, op);
    cpu.arch.fpu.pop();
    Ok(())
}

extern "C" fn fbstp(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    if cpu.arch.fpu.is_empty(0) {
        return ten_underflow(cpu, op, float::BCD_INDEFINITE);
    }
    let mut env = cpu.arch.fpu.env();
    let bytes = float::f80_to_bcd(&mut env, cpu.arch.fpu.st(0));
    let stores = !env.pending.contains(Flags::IE);
    if stores {
        store_ten(cpu, op, bytes)?;
    }
    finish(cpu, op, &env);
    if stores {
        cpu.arch.fpu.pop();
    }
    Ok(())
}

fn ten_underflow(cpu: &mut Cpu, op: &Op, indefinite: [u8; 10]) -> Exec {
    if cpu.arch.fpu.env().masks.contains(Flags::IE) {
        store_ten(cpu, op, indefinite)?;
    }
    if underflow(cpu, op) {
        cpu.arch.fpu.pop();
    }
    Ok(())
}
