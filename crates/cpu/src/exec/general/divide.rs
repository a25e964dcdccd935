//! DIV and IDIV.

use cloister_x86::{Exception, Vector};

use super::by_size_and_memory;
use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::{Exec, Stop};
use crate::mem::Int;
use crate::op::Op;

rows! {
    Div => choose(|_, op| by_size_and_memory!(op, divide)),
    Idiv => choose(|_, op| by_size_and_memory!(op, divide_signed)),
}

impl Cpu {
    /// #DE.
    #[cold]
    pub(super) fn divide_error(&mut self) -> Stop {
        self.raise(Exception::new(Vector::De))
    }
}

/// The dividend's halves: AH:AL, DX:AX, EDX:EAX or RDX:RAX.
#[inline(always)]
fn dividend<T: Int>(cpu: &Cpu) -> (T, T) {
    if T::BITS == 8 {
        (cpu.reg(4, true), cpu.reg(0, false))
    } else {
        (cpu.reg(2, false), cpu.reg(0, false))
    }
}

#[inline(always)]
fn divisor<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec<T> {
    if MEMORY { cpu.load_operand::<T>(op) } else { Ok(cpu.dst::<T>(op)) }
}

#[inline(always)]
fn set_results<T: Int>(cpu: &mut Cpu, quotient: u64, remainder: u64) {
    cpu.set_reg(0, false, T::trunc(quotient));
    if T::BITS == 8 {
        cpu.set_reg(4, true, T::trunc(remainder));
    } else {
        cpu.set_reg(2, false, T::trunc(remainder));
    }
}

extern "C" fn divide<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let by = divisor::<T, MEMORY>(cpu, op)?.zext();
    let (high, low) = dividend::<T>(cpu);
    // The quotient fits exactly if the high half is less than the divisor; 0 fits never.
    if high.zext() >= by {
        return Err(cpu.divide_error());
    }
    let (quotient, remainder) = if T::BITS < 64 {
        let all = high.zext() << (T::BITS & 63) | low.zext();
        (all / by, all % by)
    } else if high.zext() == 0 {
        (low.zext() / by, low.zext() % by)
    } else {
        let all = u128::from(high.zext()) << 64 | u128::from(low.zext());
        ((all / u128::from(by)) as u64, (all % u128::from(by)) as u64)
    };
    set_results::<T>(cpu, quotient, remainder);
    Ok(())
}

extern "C" fn divide_signed<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let by = divisor::<T, MEMORY>(cpu, op)?.sext() as i64;
    if by == 0 {
        return Err(cpu.divide_error());
    }
    let (high, low) = dividend::<T>(cpu);
    let (quotient, remainder) = if T::BITS < 64 {
        let all = (high.sext() << (T::BITS & 63) | low.zext()) as i64;
        (i128::from(all.wrapping_div(by)), all.wrapping_rem(by))
    } else {
        let all = i128::from(high.sext() as i64) << 64 | i128::from(low.zext());
        (all.wrapping_div(i128::from(by)), all.wrapping_rem(i128::from(by)) as i64)
    };
    // `wrapping_div` wraps for the least dividend by -1 alone, whose quotient fits no operand.
    let fits = i128::from(T::trunc(quotient as u64).sext() as i64) == quotient;
    if !fits {
        return Err(cpu.divide_error());
    }
    set_results::<T>(cpu, quotient as u64, remainder as u64);
    Ok(())
}
