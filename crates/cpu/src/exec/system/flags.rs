//! CLI, STI, CLAC, STAC and HLT (SDM Vol. 2).

use cloister_x86::regs::{Cr0, Cr4, Rflags};
use cloister_x86::vmx::{ExitReason, ProcControls};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;
use crate::run_state::attention;
use crate::state::{Activity, Shadow};

rows! {
    Cli => always(cli),
    Sti => always(sti).ends_block(),
    Clac => always(set_ac::<false>),
    Stac => always(set_ac::<true>),
    Hlt => always(hlt).leaves(),
}

/// Whether VIF stands for IF: where IOPL does not let CPL 3 at IF, with CR4.VME in virtual-8086 mode and with CR4.PVI
/// outside of it (SDM Vol. 3B, 20.3.2 and 20.4).
///
/// # Errors
///
/// #GP(0) where neither is for the program.
fn is_virtual(cpu: &mut Cpu) -> Exec<bool> {
    if !cpu.arch.cr0.contains(Cr0::PE) || cpu.arch.cpl <= cpu.arch.iopl() {
        return Ok(false);
    }
    let virtual_8086 = cpu.arch.system_flags.contains(Rflags::VM);
    let extension = if virtual_8086 { Cr4::VME } else { Cr4::PVI };
    if cpu.arch.cpl == 3 && cpu.arch.cr4.contains(extension) { Ok(true) } else { Err(cpu.gp(0)) }
}

extern "C" fn cli(cpu: &mut Cpu, _op: &Op) -> Exec {
    let flag = if is_virtual(cpu)? { Rflags::VIF } else { Rflags::IF };
    cpu.arch.system_flags.remove(flag);
    Ok(())
}

extern "C" fn sti(cpu: &mut Cpu, _op: &Op) -> Exec {
    if is_virtual(cpu)? {
        // An interrupt is pending, which the program now lets in.
        if cpu.arch.system_flags.contains(Rflags::VIP) {
            return Err(cpu.gp(0));
        }
        cpu.arch.system_flags.insert(Rflags::VIF);
        return Ok(());
    }
    if !cpu.arch.system_flags.contains(Rflags::IF) {
        cpu.arch.system_flags.insert(Rflags::IF);
        cpu.set_shadow(Shadow::Sti);
        cpu.run.attention |= attention::INTERRUPTS;
    }
    Ok(())
}

extern "C" fn set_ac<const ON: bool>(cpu: &mut Cpu, _op: &Op) -> Exec {
    if cpu.arch.cpl != 0 {
        return Err(cpu.ud());
    }
    cpu.arch.system_flags.set(Rflags::AC, ON);
    cpu.update_mode();
    Ok(())
}

extern "C" fn hlt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.intercept_if(op, ExitReason::Hlt, ProcControls::HLT)?;
    cpu.arch.rip = cpu.next_rip(op);
    cpu.set_activity(Activity::Halted);
    Ok(())
}
