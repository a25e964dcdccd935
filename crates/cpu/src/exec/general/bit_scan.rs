//! Counting bits: BSF, BSR, TZCNT, LZCNT, POPCNT.

use super::by_size_and_memory;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::Op;

rows! {
    Bsf => choose(|_, op| by_size_and_memory!(op, scan[false])),
    Bsr => choose(|_, op| by_size_and_memory!(op, scan[true])),
    Tzcnt => choose(|_, op| by_size_and_memory!(op, count_zeros[false])),
    Lzcnt => choose(|_, op| by_size_and_memory!(op, count_zeros[true])),
    Popcnt => choose(|_, op| by_size_and_memory!(op, population)),
}

/// BSF and BSR: a source of 0 sets ZF and leaves the destination, as processors do.
extern "C" fn scan<T: Int, const REVERSE: bool, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let source = cpu.source::<T, MEMORY>(op)?;
    cpu.arch.flags.logic(source);
    let bits = source.zext();
    if bits != 0 {
        let index = if REVERSE { bits.ilog2() } else { bits.trailing_zeros() };
        cpu.set_dst(op, T::trunc(u64::from(index)));
    }
    Ok(())
}

/// TZCNT and LZCNT: CF tells a source of 0, ZF a result of 0.
extern "C" fn count_zeros<T: Int, const LEADING: bool, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    let bits = cpu.source::<T, MEMORY>(op)?.zext();
    let count = if LEADING {
        bits.leading_zeros() - (64 - T::BITS)
    } else {
        bits.trailing_zeros().min(T::BITS)
    };
    let result = T::trunc(u64::from(count));
    cpu.arch.flags.logic(result);
    cpu.arch.flags.set_cf_of(bits == 0, false);
    cpu.set_dst(op, result);
    Ok(())
}

/// POPCNT: ZF tells a source of 0, the other flags are cleared.
extern "C" fn population<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let bits = cpu.source::<T, MEMORY>(op)?.zext();
    let zf = cloister_x86::regs::Rflags::ZF.bits();
    cpu.arch.flags.set_bits(if bits == 0 { zf } else { 0 });
    cpu.set_dst(op, T::trunc(u64::from(bits.count_ones())));
    Ok(())
}
