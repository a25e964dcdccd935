//! RDMSR and WRMSR of x2APIC registers that go to the virtual-APIC page (SDM Vol. 3C, 29.5).

use cloister_x86::msr;
use cloister_x86::vmx::SecondaryControls;

use super::{apic_access, virtual_apic};
use crate::apic::register;
use crate::cpu::Cpu;
use crate::exit::Exec;

impl Cpu {
    /// RDMSR of a register of the x2APIC in VMX non-root operation, if it is virtualized.
    pub(crate) fn virtual_x2apic_read(&self, index: u32) -> Option<u64> {
        let (number, controls) = (x2apic_register(index)?, self.guest_controls()?);
        let secondary = controls.secondary;
        let virtualized = secondary.contains(SecondaryControls::X2APIC)
            && (number == register::TPR || secondary.contains(SecondaryControls::APIC_REGISTERS));
        virtualized.then(|| self.physical_page(controls.virtual_apic).read(number as usize * 16))
    }

    /// WRMSR to a register of the x2APIC in VMX non-root operation; `false` where it is not virtualized.
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn virtual_x2apic_write(&mut self, index: u32, value: u64) -> Exec<bool> {
        let (Some(number), Some(controls)) = (x2apic_register(index), self.guest_controls()) else {
            return Ok(false);
        };
        if !controls.secondary.contains(SecondaryControls::X2APIC) {
            return Ok(false);
        }
        let most = match number {
            register::TPR => 0xff,
            register::EOI if controls.has_virtual_interrupts() => 0,
            register::SELF_IPI if controls.has_virtual_interrupts() => 0xff,
            _ => return Ok(false),
        };
        if value > most {
            return Err(self.gp(0));
        }
        let at = number as usize * 16;
        self.physical_page(controls.virtual_apic).write(at, value);
        match number {
            register::TPR => virtual_apic::task_priority_changed(self),
            register::EOI => virtual_apic::end_of_interrupt(self),
            _ if value < 0x10 => apic_access::write_exit(self, at),
            _ => virtual_apic::self_ipi(self, value as u8),
        }
        Ok(true)
    }
}

/// The register that an MSR of the x2APIC is.
fn x2apic_register(index: u32) -> Option<u32> {
    index.checked_sub(msr::X2APIC).filter(|number| *number < 0x100)
}
