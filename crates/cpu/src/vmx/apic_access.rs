//! The APIC-access page: accesses to it become accesses to the virtual-APIC page, or exit
//! (SDM Vol. 3C, 29.4). It gets no entry in the TLB, so that each access comes here.

use cloister_x86::Gpa;
use cloister_x86::vmx::{ExitReason, ProcControls, SecondaryControls, interruption};

use super::event::Vectoring;
use super::{VmExit, virtual_apic, window};
use crate::apic::register;
use crate::cpu::Cpu;
use crate::exit::{Exec, Stop};
use crate::mem::tlb::AccessKind;
use crate::op::Op;

/// Access types of the exit qualification, beside the offset in the page (SDM Vol. 3C, table 27-6).
mod access {
    pub(super) const SHIFT: u32 = 12;
    pub(super) const READ: u64 = 0;
    pub(super) const WRITE: u64 = 1;
    pub(super) const FETCH: u64 = 2;
    /// A linear access during event delivery.
    pub(super) const DELIVERY: u64 = 3;
    /// A guest-physical access during event delivery.
    pub(super) const PHYSICAL_DELIVERY: u64 = 10;
    /// Another guest-physical access.
    pub(super) const PHYSICAL: u64 = 15;
}

/// A write that went to the virtual-APIC page: what follows from it follows its instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VirtualWrite {
    /// Offset in the page.
    offset: usize,
    /// Bytes.
    len: usize,
}

/// An exit by an access at a physical address.
fn exit(address: u64, access: u64) -> VmExit {
    VmExit::new(ExitReason::ApicAccess).qualified(address & 0xfff | access << access::SHIFT)
}

/// The exit of an access that a paging structure in the APIC-access page asked for: it is not
/// virtualized (29.4.6.1).
pub(crate) fn physical_exit(address: Gpa) -> VmExit {
    exit(address.0, access::PHYSICAL)
}

/// Has the exit of an access of an instruction say how long that is (SDM Vol. 3C, 27.2.5).
pub(crate) fn note_instruction(cpu: &mut Cpu, op: &Op) {
    if let Some(exit) = &mut cpu.run.vm_exit
        && exit.reason == ExitReason::ApicAccess
    {
        exit.length = op.len.into();
    }
}

/// Has the exit of an access say that it came during the delivery of an event.
pub(super) fn note_delivery(exit: &mut VmExit, vectoring: &Vectoring) {
    if exit.reason == ExitReason::ApicAccess && vectoring.information & interruption::VALID != 0 {
        let access = match exit.qualification >> access::SHIFT {
            access::PHYSICAL => access::PHYSICAL_DELIVERY,
            _ => access::DELIVERY,
        };
        exit.qualification = exit.qualification & 0xfff | access << access::SHIFT;
    }
}

/// Whether APIC-register virtualization covers the read of a register, or its write (29.4.2 and 29.4.3).
const fn is_virtualized(number: u32, write: bool) -> bool {
    match number {
        register::ID | register::TPR | register::EOI | register::LDR | register::DFR => true,
        register::SVR | register::ESR | register::ICR_LOW | register::ICR_HIGH => true,
        register::LVT_TIMER..=register::INITIAL_COUNT | register::DIVIDE => true,
        register::VERSION | register::ISR..register::ESR => !write,
        _ => false,
    }
}

/// Whether ICR asks for no more than an interrupt of the processor itself: fixed, edge-triggered, with a
/// vector from 16 on, and no reserved bit set (29.4.3.2).
const fn is_self_ipi(command: u32) -> bool {
    const SELF: u32 = 1 << 18;
    /// Reserved bits, delivery status, shorthand, trigger mode and delivery mode.
    const CHECKED: u32 = 0xffff_b700;
    command & CHECKED == SELF && command & 0xf0 != 0
}

impl Cpu {
    /// Whether a physical address is in the APIC-access page.
    pub(crate) fn is_apic_access(&self, address: Gpa) -> bool {
        self.guest_controls().is_some_and(|controls| {
            controls.secondary.contains(SecondaryControls::APIC_ACCESSES)
                && controls.apic_access == address.0 & !0xfff
        })
    }

    /// An exit by a linear access at an offset in the page.
    pub(crate) fn apic_access_exit(&mut self, offset: usize, kind: AccessKind) -> Stop {
        let access = match kind {
            AccessKind::Read => access::READ,
            AccessKind::Write => access::WRITE,
            AccessKind::Execute => access::FETCH,
        };
        self.vm_exit(exit(offset as u64, access))
    }

    /// Reads from the page.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn apic_access_read(&mut self, offset: usize, out: &mut [u8]) -> Exec {
        let Some(page) = self.virtualized(offset, out.len(), false) else {
            return Err(self.apic_access_exit(offset, AccessKind::Read));
        };
        let value = self.physical_page(page).read_32(offset).to_le_bytes();
        out.copy_from_slice(&value[offset & 3..][..out.len()]);
        Ok(())
    }

    /// Checks a write to the page before anything of the instruction is committed. What follows from it
    /// comes before the next instruction, so it runs alone.
    ///
    /// # Errors
    ///
    /// The exit, or [`Stop::ALONE`].
    pub(crate) fn check_apic_access_write(&mut self, offset: usize, len: usize) -> Exec {
        if self.virtualized(offset, len, true).is_none() {
            return Err(self.apic_access_exit(offset, AccessKind::Write));
        }
        if self.run.alone { Ok(()) } else { Err(Stop::ALONE) }
    }

    /// Writes to the page, after [`Cpu::check_apic_access_write`].
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn apic_access_write(&mut self, offset: usize, data: &[u8]) -> Exec {
        let Some(page) = self.virtualized(offset, data.len(), true) else {
            return Err(self.apic_access_exit(offset, AccessKind::Write));
        };
        let page = self.physical_page(page);
        let mut value = page.read_32(offset).to_le_bytes();
        value[offset & 3..][..data.len()].copy_from_slice(data);
        page.write_32(offset, u32::from_le_bytes(value));
        self.run.virtual_write = Some(VirtualWrite { offset, len: data.len() });
        Ok(())
    }

    /// The virtual-APIC page, if it takes the place of this access.
    fn virtualized(&self, offset: usize, len: usize, write: bool) -> Option<u64> {
        let controls = self.guest_controls()?;
        // After a write, the operation can only repeat it.
        let repeats = |earlier| write && earlier == VirtualWrite { offset, len };
        if !controls.proc.contains(ProcControls::TPR_SHADOW)
            || (offset & 0xf) + len > 4
            || !self.run.virtual_write.is_none_or(repeats)
        {
            return None;
        }
        let number = (offset >> 4) as u32;
        let virtualized = if controls.secondary.contains(SecondaryControls::APIC_REGISTERS) {
            is_virtualized(number, write)
        } else {
            let whole = offset & 0xf == 0;
            let interrupts = controls.has_virtual_interrupts();
            match number {
                register::TPR => whole,
                register::EOI | register::ICR_LOW => whole && interrupts,
                _ => false,
            }
        };
        virtualized.then_some(controls.virtual_apic)
    }
}

/// APIC-write emulation (29.4.3.2): what follows from the write of an instruction that has retired, or of
/// the delivery of an event.
pub(crate) fn finish_write(cpu: &mut Cpu) {
    let Some(VirtualWrite { offset, .. }) = cpu.run.virtual_write.take() else { return };
    let Some(controls) = cpu.guest_controls() else { return };
    let interrupts = controls.has_virtual_interrupts();
    let apic = cpu.virtual_apic(controls.virtual_apic);
    let number = (offset >> 4) as u32;
    let whole = offset & 0xf == 0;
    match number {
        register::TPR if whole => {
            apic.write(register::TPR, apic.read(register::TPR) & 0xff);
            virtual_apic::task_priority_changed(cpu);
        }
        register::EOI if whole && interrupts => {
            apic.write(register::EOI, 0);
            virtual_apic::end_of_interrupt(cpu);
        }
        register::ICR_LOW if whole && interrupts && is_self_ipi(apic.read(register::ICR_LOW)) => {
            virtual_apic::self_ipi(cpu, apic.read(register::ICR_LOW) as u8);
        }
        register::ICR_HIGH => {
            apic.write(register::ICR_HIGH, apic.read(register::ICR_HIGH) & 0xff00_0000);
        }
        _ => write_exit(cpu, offset),
    }
}

/// APIC-write exit (29.4.3.3): after the instruction.
pub(super) fn write_exit(cpu: &mut Cpu, offset: usize) {
    window::pend(cpu, VmExit::new(ExitReason::ApicWrite).qualified(offset as u64));
}
