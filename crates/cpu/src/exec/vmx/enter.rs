//! VMLAUNCH and VMRESUME.

use cloister_x86::vmx::ExitReason;

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;
use crate::vmx::entry::{self, Refusal};

rows! {
    Vmlaunch => always(vmlaunch).leaves(),
    Vmresume => always(vmresume).leaves(),
}

extern "C" fn vmlaunch(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vmx(op, ExitReason::Vmlaunch, 0)?;
    enter(cpu, op, true)
}

extern "C" fn vmresume(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vmx(op, ExitReason::Vmresume, 0)?;
    enter(cpu, op, false)
}

/// Enters the guest; where that is refused, the next instruction follows.
fn enter(cpu: &mut Cpu, op: &Op, launch: bool) -> Exec {
    match entry::enter(cpu, launch) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(exit)) => return Err(cpu.exit_with(exit)),
        Err(Refusal::NoVmcs) => cpu.vm_fail_invalid(),
        Err(Refusal::Error(error)) => cpu.vm_fail(error),
    }
    cpu.arch.rip = cpu.next_rip(op);
    Ok(())
}
