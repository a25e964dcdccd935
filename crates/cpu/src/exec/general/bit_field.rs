//! BMI1 and BMI2: ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, PDEP, PEXT.

use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{Handler, NO_MEMORY, Op};

/// Picks an instance by operand size (4 or 8) and whether the last operand but one or the last is
/// memory.
macro_rules! pick {
    ($handler:ident) => {
        choose(|_, op| match (op.size, op.mem_operand != NO_MEMORY) {
            (8, false) => $handler::<u64, false> as Handler,
            (8, true) => $handler::<u64, true>,
            (_, false) => $handler::<u32, false>,
            (_, true) => $handler::<u32, true>,
        })
    };
}

rows! {
    Andn => pick!(andn),
    Bextr => pick!(extract),
    Blsi => pick!(isolate_lowest),
    Blsmsk => pick!(mask_to_lowest),
    Blsr => pick!(reset_lowest),
    Bzhi => pick!(zero_high),
    Pdep => pick!(deposit),
    Pext => pick!(gather),
}

/// Operand 2: a register, or memory.
#[inline(always)]
fn last<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec<T> {
    if MEMORY { cpu.load_operand(op) } else { Ok(cpu.reg(op.third, false)) }
}

/// Writes operand 0, sets SF and ZF by it and CF as given, and clears OF. AF and PF are undefined.
#[inline(always)]
fn finish<T: Int>(cpu: &mut Cpu, op: &Op, result: T, cf: bool) -> Exec {
    cpu.arch.flags.logic(result);
    cpu.arch.flags.set_cf_of(cf, false);
    cpu.set_dst(op, result);
    Ok(())
}

extern "C" fn andn<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = last::<T, MEMORY>(cpu, op)?;
    let a = cpu.src::<T>(op);
    finish(cpu, op, !a & b, false)
}

/// BEXTR: bits 7:0 of the last operand are the start, bits 15:8 the length.
extern "C" fn extract<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.source::<T, MEMORY>(op)?.zext();
    let control = cpu.reg::<u32>(op.third, false);
    let (start, length) = (control & 0xff, control >> 8 & 0xff);
    let shifted = a.checked_shr(start).unwrap_or(0);
    let mask = 1u64.checked_shl(length).map_or(u64::MAX, |bit| bit - 1);
    finish(cpu, op, T::trunc(shifted & mask), false)
}

extern "C" fn isolate_lowest<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.source::<T, MEMORY>(op)?;
    finish(cpu, op, T::trunc(0).minus(a) & a, a.zext() != 0)
}

extern "C" fn mask_to_lowest<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.source::<T, MEMORY>(op)?;
    finish(cpu, op, a.minus(T::trunc(1)) ^ a, a.zext() == 0)
}

extern "C" fn reset_lowest<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.source::<T, MEMORY>(op)?;
    finish(cpu, op, a.minus(T::trunc(1)) & a, a.zext() == 0)
}

/// BZHI: bits 7:0 of the last operand say where the zeros begin.
extern "C" fn zero_high<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.source::<T, MEMORY>(op)?;
    let index = cpu.reg::<u8>(op.third, false);
    let beyond = u32::from(index) >= T::BITS;
    let result = if beyond { a } else { a & T::trunc((1 << index) - 1) };
    finish(cpu, op, result, beyond)
}

/// PDEP: the source's low bits go where the mask has ones.
extern "C" fn deposit<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut mask = last::<T, MEMORY>(cpu, op)?.zext();
    let mut source = cpu.src::<T>(op).zext();
    let mut result = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if source & 1 != 0 {
            result |= lowest;
        }
        source >>= 1;
        mask ^= lowest;
    }
    cpu.set_dst(op, T::trunc(result));
    Ok(())
}

/// PEXT: the source's bits where the mask has ones, moved together.
extern "C" fn gather<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut mask = last::<T, MEMORY>(cpu, op)?.zext();
    let source = cpu.src::<T>(op).zext();
    let mut result = 0;
    let mut bit = 1u64;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if source & lowest != 0 {
            result |= bit;
        }
        bit = bit.wrapping_shl(1);
        mask ^= lowest;
    }
    cpu.set_dst(op, T::trunc(result));
    Ok(())
}
