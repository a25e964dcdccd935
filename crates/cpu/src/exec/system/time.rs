//! RDTSC, RDTSCP, RDPID, RDPMC and CPUID (SDM Vol. 2).

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::vmx::{ExitReason, ProcControls, SecondaryControls};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::{Exec, Exit, Stop};
use crate::op::Op;
use crate::vmx::window;

rows! {
    Rdtsc => always(rdtsc),
    Rdtscp => always(rdtscp),
    Rdpid => always(rdpid),
    Rdpmc => always(rdpmc).illegal_in_enclave(),
    Cpuid => always(cpuid).ends_block().illegal_in_enclave(),
}

impl Cpu {
    /// IA32_TIME_STAMP_COUNTER.
    #[must_use]
    pub(crate) fn tsc(&self) -> u64 {
        self.package.tsc().wrapping_add(self.arch.msrs.tsc_offset)
    }
}

extern "C" fn rdtsc(cpu: &mut Cpu, op: &Op) -> Exec {
    read_tsc(cpu, op, ExitReason::Rdtsc)
}

fn read_tsc(cpu: &mut Cpu, op: &Op, reason: ExitReason) -> Exec {
    cpu.check_enclave_tsc()?;
    if cpu.arch.cr4.contains(Cr4::TSD) && cpu.arch.cpl > 0 && cpu.arch.cr0.contains(Cr0::PE) {
        return Err(cpu.gp(0));
    }
    cpu.intercept_if(op, reason, ProcControls::RDTSC)?;
    let tsc = cpu.guest_tsc();
    if window::timer_expired(cpu) {
        // No guest sees a time after its VMX-preemption timer has expired: the exit comes first.
        return Err(Stop::ALONE);
    }
    cpu.arch.gpr[Gpr::Rax] = tsc & 0xffff_ffff;
    cpu.arch.gpr[Gpr::Rdx] = tsc >> 32;
    Ok(())
}

extern "C" fn rdtscp(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_enabled(SecondaryControls::RDTSCP)?;
    read_tsc(cpu, op, ExitReason::Rdtscp)?;
    cpu.arch.gpr[Gpr::Rcx] = cpu.arch.msrs.tsc_aux & 0xffff_ffff;
    Ok(())
}

extern "C" fn rdpid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_enabled(SecondaryControls::RDTSCP)?;
    cpu.set_dst(op, cpu.arch.msrs.tsc_aux & 0xffff_ffff);
    Ok(())
}

/// No performance counters are enumerated, so every ECX names one that does not exist.
extern "C" fn rdpmc(cpu: &mut Cpu, op: &Op) -> Exec {
    let privileged = !cpu.arch.cr4.contains(Cr4::PCE) && cpu.arch.cr0.contains(Cr0::PE);
    if cpu.arch.cpl == 0 || !privileged {
        cpu.intercept_if(op, ExitReason::Rdpmc, ProcControls::RDPMC)?;
    }
    Err(cpu.gp(0))
}

extern "C" fn cpuid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.intercept_always(op, ExitReason::Cpuid)?;
    Err(cpu.exit_with(Exit::Cpuid {
        leaf: cpu.arch.gpr[Gpr::Rax] as u32,
        subleaf: cpu.arch.gpr[Gpr::Rcx] as u32,
    }))
}
