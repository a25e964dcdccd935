//! CLI, STI, CLAC, STAC and HLT (SDM Vol. 2).

use cloister_x86::regs::{Cr0, Rflags};
use iced_x86::{Instruction, Mnemonic};

use crate::op::{Handler, Op};
use crate::state::{Cpu, Exec, attention};

/// The handler of an instruction on system flags, or HLT.
pub fn select(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        Mnemonic::Cli => cli,
        Mnemonic::Sti => sti,
        Mnemonic::Clac => set_ac::<false>,
        Mnemonic::Stac => set_ac::<true>,
        Mnemonic::Hlt => hlt,
        _ => return None,
    })
}

fn check_iopl(cpu: &mut Cpu) -> Exec {
    if cpu.cr0.contains(Cr0::PE) && cpu.cpl > cpu.iopl() { Err(cpu.gp(0)) } else { Ok(()) }
}

fn cli(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_iopl(cpu)?;
    cpu.system_flags.remove(Rflags::IF);
    Ok(())
}

fn sti(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_iopl(cpu)?;
    if !cpu.system_flags.contains(Rflags::IF) {
        cpu.system_flags.insert(Rflags::IF);
        cpu.attention |= attention::SHADOW | attention::INTERRUPTS;
    }
    Ok(())
}

fn set_ac<const ON: bool>(cpu: &mut Cpu, _op: &Op) -> Exec {
    if cpu.cpl != 0 {
        return Err(cpu.ud());
    }
    cpu.system_flags.set(Rflags::AC, ON);
    cpu.update_mode();
    Ok(())
}

fn hlt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    cpu.rip = cpu.next_rip(op);
    cpu.attention |= attention::HALTED;
    Ok(())
}
