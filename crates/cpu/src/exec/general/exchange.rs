//! Exchanges: XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B.

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;

use super::by_size;
use crate::cpu::Cpu;
use crate::exec::table::{always, choose, rows};
use crate::exit::Exec;
use crate::mem::Int;
use crate::mem::tlb::AccessKind;
use crate::op::{Handler, LOCK, NO_MEMORY, Op};

rows! {
    Xchg => choose(|_, op| match op.mem_operand {
        NO_MEMORY => by_size!(op.size, exchange_registers),
        _ => by_size!(op.size, exchange_memory),
    }),
    Xadd => choose(|_, op| match op.mem_operand {
        _ if op.prefix & LOCK != 0 => by_size!(op.size, add_locked),
        NO_MEMORY => by_size!(op.size, add_registers),
        _ => by_size!(op.size, add_memory),
    }),
    Cmpxchg => choose(|_, op| match op.mem_operand {
        _ if op.prefix & LOCK != 0 => by_size!(op.size, compare_locked),
        NO_MEMORY => by_size!(op.size, compare_registers),
        _ => by_size!(op.size, compare_memory),
    }),
    Cmpxchg8b => choose(|_, op| {
        if op.prefix & LOCK != 0 { compare_8::<true> as Handler } else { compare_8::<false> }
    }),
    Cmpxchg16b => always(compare_16),
}

/// XCHG with memory is locked with or without the prefix (SDM Vol. 2, XCHG).
extern "C" fn exchange_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let value = cpu.src::<T>(op);
    let old = cpu.locked::<T>(la, |_| value)?;
    cpu.set_src(op, old);
    Ok(())
}

extern "C" fn exchange_registers<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (a, b) = (cpu.dst::<T>(op), cpu.src::<T>(op));
    cpu.set_dst(op, b);
    cpu.set_src(op, a);
    Ok(())
}

/// XADD: the sum goes to the destination last, so that it wins where both are one register.
extern "C" fn add_registers<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (a, b) = (cpu.dst::<T>(op), cpu.src::<T>(op));
    let sum = a.plus(b);
    cpu.arch.flags.add(a, b, sum);
    cpu.set_src(op, a);
    cpu.set_dst(op, sum);
    Ok(())
}

extern "C" fn add_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let (a, place) = cpu.open::<T>(la)?;
    let b = cpu.src::<T>(op);
    let sum = a.plus(b);
    cpu.close(place, sum)?;
    cpu.arch.flags.add(a, b, sum);
    cpu.set_src(op, a);
    Ok(())
}

extern "C" fn add_locked<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let b = cpu.src::<T>(op);
    let a = cpu.locked::<T>(la, |a| a.plus(b))?;
    cpu.arch.flags.add(a, b, a.plus(b));
    cpu.set_src(op, a);
    Ok(())
}

/// CMPXCHG after its destination is dealt with: flags and accumulator.
#[inline(always)]
fn compared<T: Int>(cpu: &mut Cpu, accumulator: T, old: T) {
    cpu.arch.flags.sub(accumulator, old, accumulator.minus(old));
    if accumulator != old {
        cpu.set_reg(0, false, old);
    }
}

/// Where the values differ, the destination register is left alone, its upper half too.
extern "C" fn compare_registers<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (accumulator, old) = (cpu.reg::<T>(0, false), cpu.dst::<T>(op));
    let new = cpu.src::<T>(op);
    compared(cpu, accumulator, old);
    if accumulator == old {
        cpu.set_dst(op, new);
    }
    Ok(())
}

/// The destination is written in either case (SDM Vol. 2A, CMPXCHG).
extern "C" fn compare_memory<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let accumulator = cpu.reg::<T>(0, false);
    let (old, place) = cpu.open::<T>(la)?;
    let new = if accumulator == old { cpu.src::<T>(op) } else { old };
    cpu.close(place, new)?;
    compared(cpu, accumulator, old);
    Ok(())
}

extern "C" fn compare_locked<T: Int>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, T::SIZE, AccessKind::Write)?;
    let (accumulator, new) = (cpu.reg::<T>(0, false), cpu.src::<T>(op));
    let old = cpu.locked::<T>(la, |old| if old == accumulator { new } else { old })?;
    compared(cpu, accumulator, old);
    Ok(())
}

extern "C" fn compare_8<const LOCKED: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, 8, AccessKind::Write)?;
    let pair = |cpu: &Cpu, high: u8, low: u8| {
        u64::from(cpu.reg::<u32>(high, false)) << 32 | u64::from(cpu.reg::<u32>(low, false))
    };
    let (expected, new) = (pair(cpu, 2, 0), pair(cpu, 1, 3));
    let choose = |old: u64| if old == expected { new } else { old };
    let old = if LOCKED {
        cpu.locked::<u64>(la, choose)?
    } else {
        let (old, place) = cpu.open::<u64>(la)?;
        cpu.close(place, choose(old))?;
        old
    };
    if old != expected {
        cpu.set_reg(0, false, old as u32);
        cpu.set_reg(2, false, (old >> 32) as u32);
    }
    set_zero(cpu, old == expected);
    Ok(())
}

extern "C" fn compare_16(cpu: &mut Cpu, op: &Op) -> Exec {
    let la = cpu.linear(op, 16, AccessKind::Write)?;
    if la & 0xf != 0 {
        // SDM Vol. 2A, CMPXCHG16B: not aligned to 16 bytes.
        return Err(cpu.gp(0));
    }
    let pair = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let expected = pair(cpu.arch.gpr[Gpr::Rdx], cpu.arch.gpr[Gpr::Rax]);
    let new = pair(cpu.arch.gpr[Gpr::Rcx], cpu.arch.gpr[Gpr::Rbx]);
    let old = cpu.compare_exchange_16(la, expected, new)?;
    if old != expected {
        cpu.arch.gpr[Gpr::Rax] = old as u64;
        cpu.arch.gpr[Gpr::Rdx] = (old >> 64) as u64;
    }
    set_zero(cpu, old == expected);
    Ok(())
}

/// Changes ZF alone.
fn set_zero(cpu: &mut Cpu, zero: bool) {
    let zf = Rflags::ZF.bits();
    cpu.arch.flags.merge(zf, if zero { zf } else { 0 });
}
