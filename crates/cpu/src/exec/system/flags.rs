//! CLI, STI, CLAC, STAC and HLT (SDM Vol. 2).

use cloister_x86::regs::{Cr0, Rflags};
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

fn check_iopl(cpu: &mut Cpu) -> Exec {
    if cpu.arch.cr0.contains(Cr0::PE) && cpu.arch.cpl > cpu.arch.iopl() {
        Err(cpu.gp(0))
    } else {
        Ok(())
    }
}

extern "C" fn cli(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_iopl(cpu)?;
    cpu.arch.system_flags.remove(Rflags::IF);
    Ok(())
}

extern "C" fn sti(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_iopl(cpu)?;
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
