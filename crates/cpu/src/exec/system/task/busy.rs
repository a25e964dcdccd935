//! The busy flag of TSS descriptors, which processors change under a lock (SDM Vol. 3A, 7.4.1).

use crate::cpu::Cpu;
use crate::exec::system::descriptor::Descriptor;
use crate::exit::Exec;
use crate::mem::tlb::MmuMode;

/// Bit 1 of the type.
const BUSY: u8 = 2;

/// Sets the busy flag; `false` if it was set already, by another processor perhaps since the
/// descriptor was read.
///
/// # Errors
///
/// As [`Cpu::locked`].
pub(crate) fn take(cpu: &mut Cpu, descriptor: Descriptor) -> Exec<bool> {
    Ok(change(cpu, descriptor, |access| access | BUSY)? & BUSY == 0)
}

/// Clears the busy flag.
///
/// # Errors
///
/// As [`Cpu::locked`].
pub(crate) fn release(cpu: &mut Cpu, descriptor: Descriptor) -> Exec {
    change(cpu, descriptor, |access| access & !BUSY).map(drop)
}

fn change(cpu: &mut Cpu, descriptor: Descriptor, f: impl FnMut(u8) -> u8) -> Exec<u8> {
    let la = cpu.system_linear(descriptor.address.wrapping_add(5));
    as_supervisor(cpu, |cpu| cpu.locked(la, f))
}

/// Accesses memory as the processor does for itself, whatever the privilege level.
pub(crate) fn as_supervisor<T>(cpu: &mut Cpu, access: impl FnOnce(&mut Cpu) -> T) -> T {
    let mode = std::mem::replace(&mut cpu.run.mmu_mode, MmuMode::Supervisor);
    let result = access(cpu);
    cpu.run.mmu_mode = mode;
    result
}
