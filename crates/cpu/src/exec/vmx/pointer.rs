//! VMCLEAR, VMPTRLD and VMPTRST.

use cloister_x86::vmx::{ExitReason, VmInstructionError};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::Op;
use crate::vmx::controls::is_page;
use crate::vmx::info;
use crate::vmx::region::{REVISION, SHADOW};

rows! {
    Vmclear => always(vmclear),
    Vmptrld => always(vmptrld),
    Vmptrst => always(vmptrst),
}

extern "C" fn vmclear(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vmx(op, ExitReason::Vmclear, info::operand(op))?;
    let address = cpu.load_operand::<u64>(op)?;
    if !is_page(cpu, address) {
        cpu.vm_fail(VmInstructionError::VmclearInvalidAddress);
    } else if cpu.arch.vmx.vmxon == Some(address) {
        cpu.vm_fail(VmInstructionError::VmclearVmxonPointer);
    } else {
        cpu.vmcs(address).set_launched(false);
        if cpu.arch.vmx.current == Some(address) {
            cpu.arch.vmx.current = None;
        }
        cpu.vm_succeed();
    }
    Ok(())
}

extern "C" fn vmptrld(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vmx(op, ExitReason::Vmptrld, info::operand(op))?;
    let address = cpu.load_operand::<u64>(op)?;
    if !is_page(cpu, address) {
        cpu.vm_fail(VmInstructionError::VmptrldInvalidAddress);
    } else if cpu.arch.vmx.vmxon == Some(address) {
        cpu.vm_fail(VmInstructionError::VmptrldVmxonPointer);
    } else if cpu.vmcs(address).revision() & !SHADOW != REVISION {
        cpu.vm_fail(VmInstructionError::VmptrldWrongRevision);
    } else {
        cpu.arch.vmx.current = Some(address);
        cpu.vm_succeed();
    }
    Ok(())
}

extern "C" fn vmptrst(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vmx(op, ExitReason::Vmptrst, info::operand(op))?;
    let current = cpu.arch.vmx.current.unwrap_or(u64::MAX);
    cpu.store_operand(op, current)?;
    cpu.vm_succeed();
    Ok(())
}
