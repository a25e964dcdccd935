//! Flag control: STC, CLC, CMC, STD, CLD, LAHF, SAHF, PUSHF, POPF.

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;

use crate::cpu::Cpu;
use crate::exec::system::virtual_8086::{
    InterruptFlag, flags_with_vif, interrupt_flag, popped_for_vif,
};
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::flags::Flags;
use crate::mem::Int;
use crate::op::Op;

rows! {
    Stc => always(set_carry),
    Clc => always(clear_carry),
    Cmc => always(complement_carry),
    Std => always(set_direction),
    Cld => always(clear_direction),
    Lahf => always(lahf),
    Sahf => always(sahf),
    Pushf => always(push_flags::<u16>),
    Pushfd => always(push_flags::<u32>),
    Pushfq => always(push_flags::<u64>),
    Popf => always(pop_flags::<u16>).ends_block(),
    Popfd => always(pop_flags::<u32>).ends_block(),
    Popfq => always(pop_flags::<u64>).ends_block(),
}

extern "C" fn set_carry(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.arch.flags.set_cf(true);
    Ok(())
}

extern "C" fn clear_carry(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.arch.flags.set_cf(false);
    Ok(())
}

extern "C" fn complement_carry(cpu: &mut Cpu, _op: &Op) -> Exec {
    let cf = cpu.arch.flags.cf();
    cpu.arch.flags.set_cf(!cf);
    Ok(())
}

extern "C" fn set_direction(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.arch.system_flags.insert(Rflags::DF);
    Ok(())
}

extern "C" fn clear_direction(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.arch.system_flags.remove(Rflags::DF);
    Ok(())
}

/// SF, ZF, AF, PF and CF: what LAHF and SAHF move.
const AH_FLAGS: u64 = Flags::MASK & 0xff;

extern "C" fn lahf(cpu: &mut Cpu, _op: &Op) -> Exec {
    let value = (cpu.arch.flags.bits() & AH_FLAGS | 2) as u8;
    cpu.set_reg(4, true, value);
    Ok(())
}

extern "C" fn sahf(cpu: &mut Cpu, _op: &Op) -> Exec {
    let value = cpu.reg::<u8>(4, true);
    cpu.arch.flags.merge(AH_FLAGS, u64::from(value));
    Ok(())
}

/// VM and RF are pushed as 0 (SDM Vol. 2B, PUSHF).
extern "C" fn push_flags<T: Int>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let value = match interrupt_flag(cpu, T::SIZE as u8)? {
        InterruptFlag::Own => cpu.rflags(),
        InterruptFlag::Virtual => flags_with_vif(cpu),
    };
    cpu.push(T::trunc(value & !(Rflags::VM | Rflags::RF).bits()))
}

/// Which flags change depends on operand size, CPL and IOPL (SDM Vol. 2B, table 4-15).
extern "C" fn pop_flags<T: Int>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let flag = interrupt_flag(cpu, T::SIZE as u8)?;
    let mut value = cpu.stack_load::<T>(cpu.arch.gpr[Gpr::Rsp])?.zext();
    if flag == InterruptFlag::Virtual {
        value = popped_for_vif(cpu, value)?;
    }
    cpu.set_stack_pointer(cpu.arch.gpr[Gpr::Rsp].wrapping_add(T::SIZE as u64));
    let privilege = Rflags::IOPL0 | Rflags::IOPL1;
    let mut changed =
        Rflags::from_bits_truncate(Flags::MASK) | Rflags::TF | Rflags::DF | Rflags::NT;
    let virtual_8086 = cpu.arch.system_flags.contains(Rflags::VM);
    if cpu.arch.cpl == 0 && !virtual_8086 {
        changed |= privilege;
    }
    if cpu.arch.cpl <= cpu.arch.iopl() {
        changed |= Rflags::IF;
    }
    if flag == InterruptFlag::Virtual {
        changed |= Rflags::VIF;
    }
    let mut cleared = Rflags::empty();
    if T::BITS > 16 {
        changed |= Rflags::AC | Rflags::ID;
        cleared = Rflags::RF;
        if cpu.arch.cpl == 0 && !virtual_8086 {
            cleared |= Rflags::VIF | Rflags::VIP;
        }
    }
    if cpu.enclave.debug_opt_out() {
        // SDM Vol. 3D, 40.2.5: TF becomes 0 whatever was popped.
        changed.remove(Rflags::TF);
        cleared |= Rflags::TF;
    }
    let kept = cpu.rflags() & !(changed | cleared).bits();
    cpu.set_rflags(kept | value & changed.bits());
    Ok(())
}
