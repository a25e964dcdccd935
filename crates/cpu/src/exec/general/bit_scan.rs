//! Counting bits: BSF, BSR, TZCNT, LZCNT, POPCNT.

use iced_x86::{Instruction, Mnemonic};

use super::by_size;
use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{Handler, NO_MEMORY, Op};

/// The handler of these instructions.
pub fn select(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let memory = op.mem_operand != NO_MEMORY;
    Some(match instruction.mnemonic() {
        Mnemonic::Bsf if memory => by_size!(op.size, scan[false, true]),
        Mnemonic::Bsf => by_size!(op.size, scan[false, false]),
        Mnemonic::Bsr if memory => by_size!(op.size, scan[true, true]),
        Mnemonic::Bsr => by_size!(op.size, scan[true, false]),
        Mnemonic::Tzcnt if memory => by_size!(op.size, count_zeros[false, true]),
        Mnemonic::Tzcnt => by_size!(op.size, count_zeros[false, false]),
        Mnemonic::Lzcnt if memory => by_size!(op.size, count_zeros[true, true]),
        Mnemonic::Lzcnt => by_size!(op.size, count_zeros[true, false]),
        Mnemonic::Popcnt if memory => by_size!(op.size, population[true]),
        Mnemonic::Popcnt => by_size!(op.size, population[false]),
        _ => return None,
    })
}

/// BSF and BSR: a source of 0 sets ZF and leaves the destination, as processors do.
fn scan<T: Int, const REVERSE: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
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
fn count_zeros<T: Int, const LEADING: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
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
fn population<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let bits = cpu.source::<T, MEMORY>(op)?.zext();
    let zf = cloister_x86::regs::Rflags::ZF.bits();
    cpu.arch.flags.set_bits(if bits == 0 { zf } else { 0 });
    cpu.set_dst(op, T::trunc(u64::from(bits.count_ones())));
    Ok(())
}
