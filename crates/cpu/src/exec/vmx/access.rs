//! VMREAD and VMWRITE.

use cloister_x86::vmx::{ExitReason, VmInstructionError};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::{NO_MEMORY, Op};
use crate::vmx::info;
use crate::vmx::region::Component;

rows! {
    Vmread => always(vmread),
    Vmwrite => always(vmwrite),
}

/// A register operand as wide as the mode.
fn register(cpu: &Cpu, number: u8) -> u64 {
    let value = cpu.reg::<u64>(number, false);
    if cpu.run.mode.is_64() { value } else { value & 0xffff_ffff }
}

extern "C" fn vmread(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vmx(op, ExitReason::Vmread, info::operand_and_register(op, op.src))?;
    let Some(vmcs) = cpu.arch.vmx.current else {
        cpu.vm_fail_invalid();
        return Ok(());
    };
    let Some(component) = Component::of(register(cpu, op.src)) else {
        cpu.vm_fail(VmInstructionError::UnsupportedField);
        return Ok(());
    };
    let value = cpu.vmcs(vmcs).load(component);
    match (op.mem_operand == NO_MEMORY, cpu.run.mode.is_64()) {
        (true, true) => cpu.set_dst(op, value),
        (true, false) => cpu.set_dst(op, value as u32),
        (false, true) => cpu.store_operand(op, value)?,
        (false, false) => cpu.store_operand(op, value as u32)?,
    }
    cpu.vm_succeed();
    Ok(())
}

extern "C" fn vmwrite(cpu: &mut Cpu, op: &Op) -> Exec {
    let source = if op.mem_operand == NO_MEMORY { op.src } else { 0 };
    let information = match op.mem_operand {
        NO_MEMORY => 1 << 10 | u32::from(source) << 3 | u32::from(op.dst) << 28,
        _ => info::operand_and_register(op, op.dst),
    };
    cpu.check_vmx(op, ExitReason::Vmwrite, information)?;
    let Some(vmcs) = cpu.arch.vmx.current else {
        cpu.vm_fail_invalid();
        return Ok(());
    };
    let wide = cpu.run.mode.is_64();
    let value = match (op.mem_operand == NO_MEMORY, wide) {
        (true, _) => register(cpu, source),
        (false, true) => cpu.load_operand::<u64>(op)?,
        (false, false) => u64::from(cpu.load_operand::<u32>(op)?),
    };
    let Some(component) = Component::of(register(cpu, op.dst)) else {
        cpu.vm_fail(VmInstructionError::UnsupportedField);
        return Ok(());
    };
    // Fields of exit information can be written too, as IA32_VMX_MISC says.
    cpu.vmcs(vmcs).store(component, value, if wide { 64 } else { 32 });
    cpu.vm_succeed();
    Ok(())
}
