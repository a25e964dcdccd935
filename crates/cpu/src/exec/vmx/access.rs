//! VMREAD and VMWRITE.

use cloister_x86::vmx::{ExitReason, SecondaryControls, VmInstructionError};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::{NO_MEMORY, Op};
use crate::vmx::region::Component;
use crate::vmx::{ExecutionControls, info};

rows! {
    Vmread => always(vmread),
    Vmwrite => always(vmwrite),
}

/// A register operand as wide as the mode.
fn register(cpu: &Cpu, number: u8) -> u64 {
    let value = cpu.reg::<u64>(number, false);
    if cpu.run.mode.is_64() { value } else { value & 0xffff_ffff }
}

impl Cpu {
    /// Whether VMREAD or VMWRITE of an encoding in VMX non-root operation does not exit, but accesses the
    /// VMCS of the link pointer: VMCS shadowing (SDM Vol. 3C, 24.6.15 and 25.1.3).
    fn is_shadowed(&self, encoding: u64, bitmap: impl Fn(&ExecutionControls) -> u64) -> bool {
        self.guest_controls().is_some_and(|controls| {
            let byte = |at: u64| self.physical_page(bitmap(controls)).byte(at as usize);
            controls.secondary.contains(SecondaryControls::VMCS_SHADOWING)
                && encoding >> 15 == 0
                && byte(encoding >> 3) >> (encoding & 7) & 1 == 0
        })
    }

    /// The VMCS that VMREAD and VMWRITE access: the current one, or what it links to.
    fn accessed_vmcs(&self) -> Option<u64> {
        match &self.arch.vmx.guest {
            Some(guest) => guest.link_pointer,
            None => self.arch.vmx.current,
        }
    }
}

extern "C" fn vmread(cpu: &mut Cpu, op: &Op) -> Exec {
    let encoding = register(cpu, op.src);
    let shadowed = cpu.is_shadowed(encoding, |controls| controls.vmread_bitmap);
    let information = info::operand_and_register(op, op.src);
    cpu.check_vmx_unless(op, ExitReason::Vmread, information, shadowed)?;
    let Some(vmcs) = cpu.accessed_vmcs() else {
        cpu.vm_fail_invalid();
        return Ok(());
    };
    let Some(component) = Component::of(encoding) else {
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
    let encoding = register(cpu, op.dst);
    let shadowed = cpu.is_shadowed(encoding, |controls| controls.vmwrite_bitmap);
    cpu.check_vmx_unless(op, ExitReason::Vmwrite, information, shadowed)?;
    let Some(vmcs) = cpu.accessed_vmcs() else {
        cpu.vm_fail_invalid();
        return Ok(());
    };
    let wide = cpu.run.mode.is_64();
    let value = match (op.mem_operand == NO_MEMORY, wide) {
        (true, _) => register(cpu, source),
        (false, true) => cpu.load_operand::<u64>(op)?,
        (false, false) => u64::from(cpu.load_operand::<u32>(op)?),
    };
    let Some(component) = Component::of(encoding) else {
        cpu.vm_fail(VmInstructionError::UnsupportedField);
        return Ok(());
    };
    // Fields of exit information can be written too, as IA32_VMX_MISC says.
    cpu.vmcs(vmcs).store(component, value, if wide { 64 } else { 32 });
    cpu.vm_succeed();
    Ok(())
}
