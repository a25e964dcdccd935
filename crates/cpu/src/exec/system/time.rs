//! RDTSC, RDTSCP, RDPID, RDPMC and CPUID (SDM Vol. 2).

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Cr4};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::{Exec, Exit};
use crate::op::Op;

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

extern "C" fn rdtsc(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.check_enclave_tsc()?;
    if cpu.arch.cr4.contains(Cr4::TSD) && cpu.arch.cpl > 0 && cpu.arch.cr0.contains(Cr0::PE) {
        return Err(cpu.gp(0));
    }
    let tsc = cpu.tsc();
    cpu.arch.gpr[Gpr::Rax] = tsc & 0xffff_ffff;
    cpu.arch.gpr[Gpr::Rdx] = tsc >> 32;
    Ok(())
}

extern "C" fn rdtscp(cpu: &mut Cpu, op: &Op) -> Exec {
    rdtsc(cpu, op)?;
    cpu.arch.gpr[Gpr::Rcx] = cpu.arch.msrs.tsc_aux & 0xffff_ffff;
    Ok(())
}

extern "C" fn rdpid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.set_dst(op, cpu.arch.msrs.tsc_aux & 0xffff_ffff);
    Ok(())
}

/// No performance counters are enumerated, so every ECX names one that does not exist.
extern "C" fn rdpmc(cpu: &mut Cpu, _op: &Op) -> Exec {
    Err(cpu.gp(0))
}

extern "C" fn cpuid(cpu: &mut Cpu, _op: &Op) -> Exec {
    Err(cpu.exit_with(Exit::Cpuid {
        leaf: cpu.arch.gpr[Gpr::Rax] as u32,
        subleaf: cpu.arch.gpr[Gpr::Rcx] as u32,
    }))
}
