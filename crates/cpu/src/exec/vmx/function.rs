//! VMFUNC (SDM Vol. 3C, 25.5.6).

use cloister_x86::Gpr;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{ExitReason, SecondaryControls};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;
use crate::vmx::VmExit;
use crate::vmx::controls::is_eptp;

/// Functions that a VMCS can have.
const FUNCTIONS: u32 = 64;
/// Entries of the list of EPT pointers.
const EPTPS: u32 = 512;

rows! {
    Vmfunc => always(vmfunc).ends_block().illegal_in_enclave(),
}

extern "C" fn vmfunc(cpu: &mut Cpu, op: &Op) -> Exec {
    let function = cpu.arch.gpr[Gpr::Rax] as u32;
    let controls = cpu.guest_controls();
    let Some(controls) = controls.filter(|controls| {
        controls.secondary.contains(SecondaryControls::VM_FUNCTIONS) && function < FUNCTIONS
    }) else {
        return Err(cpu.ud());
    };
    let enabled = controls.functions >> function & 1 != 0;
    let eptp = enabled.then(|| listed_eptp(cpu, controls.eptp_list)).flatten();
    match eptp {
        Some(eptp) => switch_eptp(cpu, eptp),
        None => return Err(cpu.vm_exit(VmExit::of(ExitReason::Vmfunc, op))),
    }
    Ok(())
}

/// The EPT pointer that RCX names in the list, if VM entry would take it. EPTP switching is the only
/// function.
fn listed_eptp(cpu: &Cpu, list: u64) -> Option<u64> {
    let index = cpu.arch.gpr[Gpr::Rcx] as u32;
    let eptp = (index < EPTPS).then(|| cpu.physical_page(list).read(8 * index as usize))?;
    is_eptp(cpu, eptp).then_some(eptp)
}

/// Goes on with other extended page tables. PDPTE registers stay, and no translation is dropped that
/// a VPID tags (25.5.6.3).
fn switch_eptp(cpu: &mut Cpu, eptp: u64) {
    let Some(guest) = &mut cpu.arch.vmx.guest else { return };
    guest.controls.eptp = eptp;
    let world = guest.controls.world();
    cpu.vmcs(cpu.arch.vmx.current.unwrap_or(u64::MAX)).write(Field::EPTP, eptp);
    cpu.enter_world(world, cpu.paging());
}
