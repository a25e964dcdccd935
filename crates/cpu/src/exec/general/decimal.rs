//! Decimal arithmetic: DAA, DAS, AAA, AAS, AAM, AAD (not in 64-bit mode), and SALC, which the SDM
//! does not name but processors have.

use cloister_x86::regs::Rflags;

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;

rows! {
    Daa => always(decimal_adjust::<false>),
    Das => always(decimal_adjust::<true>),
    Aaa => always(ascii_adjust::<false>),
    Aas => always(ascii_adjust::<true>),
    Aam => always(multiply_adjust),
    Aad => always(divide_adjust),
    Salc => always(salc),
}

/// Sets SF, ZF and PF by AL, CF and AF as given, and clears OF.
fn set_flags(cpu: &mut Cpu, cf: bool, af: bool) {
    let al = cpu.reg::<u8>(0, false);
    cpu.arch.flags.logic(al);
    cpu.arch.flags.set_cf_of(cf, false);
    let mask = Rflags::AF.bits();
    cpu.arch.flags.merge(mask, if af { mask } else { 0 });
}

/// DAA and DAS (SDM Vol. 2A).
extern "C" fn decimal_adjust<const SUBTRACT: bool>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let old = cpu.reg::<u8>(0, false);
    let old_cf = cpu.arch.flags.cf();
    let mut al = old;
    let (mut cf, mut af) = (false, false);
    let adjust = |al: &mut u8, by: u8| {
        let (sum, out) = if SUBTRACT { al.overflowing_sub(by) } else { al.overflowing_add(by) };
        *al = sum;
        out
    };
    if old & 0xf > 9 || cpu.arch.flags.af() {
        cf = old_cf | adjust(&mut al, 6);
        af = true;
    }
    if old > 0x99 || old_cf {
        adjust(&mut al, 0x60);
        cf = true;
    } else if !SUBTRACT {
        cf = false;
    }
    cpu.set_reg(0, false, al);
    set_flags(cpu, cf, af);
    Ok(())
}

/// AAA and AAS (SDM Vol. 2A).
extern "C" fn ascii_adjust<const SUBTRACT: bool>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let mut ax = cpu.reg::<u16>(0, false);
    let adjust = ax & 0xf > 9 || cpu.arch.flags.af();
    if adjust {
        ax = if SUBTRACT { ax.wrapping_sub(6).wrapping_sub(0x100) } else { ax.wrapping_add(0x106) };
    }
    cpu.set_reg(0, false, ax & 0xff0f);
    set_flags(cpu, adjust, adjust);
    Ok(())
}

extern "C" fn multiply_adjust(cpu: &mut Cpu, op: &Op) -> Exec {
    let base = op.imm as u8;
    let al = cpu.reg::<u8>(0, false);
    let (Some(tens), Some(ones)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(cpu.divide_error());
    };
    cpu.set_reg(0, false, u16::from(tens) << 8 | u16::from(ones));
    set_flags(cpu, false, false);
    Ok(())
}

extern "C" fn divide_adjust(cpu: &mut Cpu, op: &Op) -> Exec {
    let (al, ah) = (cpu.reg::<u8>(0, false), cpu.reg::<u8>(4, true));
    let sum = al.wrapping_add(ah.wrapping_mul(op.imm as u8));
    cpu.set_reg(0, false, u16::from(sum));
    set_flags(cpu, false, false);
    Ok(())
}

/// SALC: AL becomes 0, or FFH with CF set.
extern "C" fn salc(cpu: &mut Cpu, _op: &Op) -> Exec {
    let value: u8 = if cpu.arch.flags.cf() { 0xff } else { 0 };
    cpu.set_reg(0, false, value);
    Ok(())
}
