//! MUL, IMUL, MULX.

use super::by_size_and_memory;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{Handler, NO_MEMORY, Op};

rows! {
    Mul => choose(|_, op| by_size_and_memory!(op, wide[false])),
    Imul => choose(|instruction, op| match instruction.op_count() {
        1 => by_size_and_memory!(op, wide[true]),
        2 => by_size_and_memory!(op, two_operands),
        _ => by_size_and_memory!(op, three_operands),
    }),
    Mulx => choose(|_, op| match (op.size, op.mem_operand != NO_MEMORY) {
        (8, false) => mulx::<u64, false> as Handler,
        (8, true) => mulx::<u64, true>,
        (_, false) => mulx::<u32, false>,
        (_, true) => mulx::<u32, true>,
    }),
}

/// The product's halves, and whether the upper one says more than the lower one's sign (signed)
/// or zero (unsigned).
#[inline(always)]
fn product<T: Int, const SIGNED: bool>(a: T, b: T) -> (T, T, bool) {
    if SIGNED {
        let all = i128::from(a.sext() as i64) * i128::from(b.sext() as i64);
        let (low, high) = (T::trunc(all as u64), T::trunc((all >> T::BITS) as u64));
        (low, high, all != i128::from(low.sext() as i64))
    } else {
        let all = u128::from(a.zext()) * u128::from(b.zext());
        let (low, high) = (T::trunc(all as u64), T::trunc((all >> T::BITS) as u64));
        (low, high, high.zext() != 0)
    }
}

/// Sets CF and OF. SF, ZF, AF and PF are undefined; they follow the low half.
#[inline(always)]
fn set_flags<T: Int>(cpu: &mut Cpu, low: T, overflow: bool) {
    cpu.arch.flags.logic(low);
    cpu.arch.flags.set_cf_of(overflow, overflow);
}

/// The forms with the accumulator: operand 0 is the other factor.
extern "C" fn wide<T: Int, const SIGNED: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = if MEMORY { cpu.load_operand::<T>(op)? } else { cpu.dst::<T>(op) };
    let (low, high, overflow) = product::<T, SIGNED>(cpu.reg(0, false), b);
    if T::BITS == 8 {
        cpu.set_reg(0, false, (high.zext() << 8 | low.zext()) as u16);
    } else {
        cpu.set_reg(0, false, low);
        cpu.set_reg(2, false, high);
    }
    set_flags(cpu, low, overflow);
    Ok(())
}

extern "C" fn two_operands<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = cpu.source::<T, MEMORY>(op)?;
    let (low, _, overflow) = product::<T, true>(cpu.dst(op), b);
    cpu.set_dst(op, low);
    set_flags(cpu, low, overflow);
    Ok(())
}

extern "C" fn three_operands<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = cpu.source::<T, MEMORY>(op)?;
    let (low, _, overflow) = product::<T, true>(a, T::trunc(op.imm));
    cpu.set_dst(op, low);
    set_flags(cpu, low, overflow);
    Ok(())
}

/// MULX: operand 0 gets the high half, operand 1 the low half; the high half wins where both are
/// one register (SDM Vol. 2B, MULX).
extern "C" fn mulx<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = if MEMORY { cpu.load_operand::<T>(op)? } else { cpu.reg::<T>(op.third, false) };
    let (low, high, _) = product::<T, false>(cpu.reg(2, false), b);
    cpu.set_src(op, low);
    cpu.set_dst(op, high);
    Ok(())
}
