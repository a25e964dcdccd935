//! VMXON, VMXOFF and VMCALL.

use cloister_x86::regs::Cr4;
use cloister_x86::vmx::{ExitReason, VmInstructionError};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;
use crate::state::VmxState;
use crate::vmx::controls::is_page;
use crate::vmx::info;
use crate::vmx::region::REVISION;

rows! {
    Vmxon => always(vmxon),
    Vmxoff => always(vmxoff),
    Vmcall => always(vmcall).leaves().illegal_in_enclave(),
}

extern "C" fn vmxon(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.arch.cr4.contains(Cr4::VMXE) {
        return Err(cpu.ud());
    }
    cpu.check_vmx_mode()?;
    cpu.intercept_operand(op, ExitReason::Vmxon, info::operand(op), |_| true)?;
    cpu.require_cpl0()?;
    if cpu.in_vmx() {
        cpu.vm_fail(VmInstructionError::VmxonInRoot);
        return Ok(());
    }
    if !cpu.ctl.vmx_enabled || !cpu.can_enter_vmx() {
        return Err(cpu.gp(0));
    }
    let address = cpu.load_operand::<u64>(op)?;
    if !is_page(cpu, address) || cpu.vmcs(address).revision() != REVISION {
        cpu.vm_fail_invalid();
        return Ok(());
    }
    cpu.arch.vmx = VmxState { vmxon: Some(address), current: None, guest: None };
    cpu.vm_succeed();
    Ok(())
}

extern "C" fn vmxoff(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vmx(op, ExitReason::Vmxoff, 0)?;
    cpu.arch.vmx = VmxState::default();
    cpu.unblock_init();
    cpu.vm_succeed();
    Ok(())
}

extern "C" fn vmcall(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.in_vmx() {
        return Err(cpu.ud());
    }
    cpu.intercept_always(op, ExitReason::Vmcall)?;
    cpu.check_vmx_mode()?;
    cpu.require_cpl0()?;
    // There is no dual-monitor treatment of SMIs and SMM.
    cpu.vm_fail(VmInstructionError::VmcallInRoot);
    cpu.arch.rip = cpu.next_rip(op);
    Ok(())
}
