//! The virtual-APIC page: priorities and interrupts of a guest without exits (SDM Vol. 3C, 29.1, 29.2 and
//! 29.6).

use cloister_x86::regs::Rflags;
use cloister_x86::vmx::{ExitReason, ProcControls};

use super::{VmExit, window};
use crate::apic::register;
use crate::cpu::Cpu;
use crate::debugger;
use crate::event::{self, Event, Kind};
use crate::exit::Exit;
use crate::mem::physical::PhysicalPage;
use crate::run_state::attention;
use crate::state::Shadow;

/// Guest interrupt status, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VirtualInterrupts {
    /// Requesting virtual interrupt (RVI): the highest vector in VIRR, or 0.
    requesting: u8,
    /// Servicing virtual interrupt (SVI): the highest vector in VISR, or 0.
    servicing: u8,
    /// A pending virtual interrupt is recognized: it is delivered when the guest can take it.
    pending: bool,
}

impl VirtualInterrupts {
    /// As the guest interrupt status has them.
    pub(super) const fn new(status: u16) -> Self {
        let [requesting, servicing] = status.to_le_bytes();
        Self { requesting, servicing, pending: false }
    }

    /// Guest interrupt status.
    pub(crate) const fn status(self) -> u16 {
        u16::from_le_bytes([self.requesting, self.servicing])
    }
}

/// The virtual-APIC page.
#[derive(Clone, Copy)]
pub(super) struct VirtualApic<'a>(PhysicalPage<'a>);

impl VirtualApic<'_> {
    /// Reads a register by its number.
    pub(super) fn read(self, number: u32) -> u32 {
        self.0.read_32(number as usize * 16)
    }

    /// Writes a register by its number.
    pub(super) fn write(self, number: u32, value: u32) {
        self.0.write_32(number as usize * 16, value);
    }

    /// Sets the bit of a vector in VIRR or VISR, whose registers begin at `first`, or clears it.
    fn set(self, first: u32, vector: u8, on: bool) {
        let number = first + u32::from(vector >> 5);
        let bit = 1 << (vector & 31);
        let old = self.read(number);
        self.write(number, if on { old | bit } else { old & !bit });
    }

    /// The highest vector in VIRR or VISR, or 0.
    fn highest(self, first: u32) -> u8 {
        let word = (0..8u8).rev().map(|n| (n, self.read(first + u32::from(n))));
        let highest = word.into_iter().find(|(_, bits)| *bits != 0);
        highest.map_or(0, |(n, bits)| 32 * n + bits.ilog2() as u8)
    }
}

impl Cpu {
    /// The virtual-APIC page at a physical address.
    pub(super) fn virtual_apic(&self, address: u64) -> VirtualApic<'_> {
        VirtualApic(self.physical_page(address))
    }

    /// The task priority in a virtual-APIC page.
    pub(super) fn virtual_task_priority(&self, address: u64) -> u8 {
        self.virtual_apic(address).read(register::TPR) as u8
    }
}

/// TPR virtualization (29.1.2), which VM entry does too (26.3.2.5 and 26.7.7).
pub(super) fn task_priority_changed(cpu: &mut Cpu) {
    let Some(controls) = cpu.guest_controls() else { return };
    if controls.has_virtual_interrupts() {
        update_priority(cpu);
        evaluate(cpu);
    } else if controls.proc.contains(ProcControls::TPR_SHADOW)
        && u32::from(cpu.virtual_task_priority(controls.virtual_apic) >> 4) < controls.tpr_threshold
    {
        window::pend(cpu, VmExit::new(ExitReason::TprBelowThreshold));
    }
}

/// PPR virtualization (29.1.3).
fn update_priority(cpu: &mut Cpu) {
    let Some(guest) = &cpu.arch.vmx.guest else { return };
    let apic = cpu.virtual_apic(guest.controls.virtual_apic);
    let task_priority = apic.read(register::TPR) & 0xff;
    let servicing = u32::from(guest.interrupts.servicing);
    let priority =
        if task_priority >> 4 >= servicing >> 4 { task_priority } else { servicing & 0xf0 };
    apic.write(register::PPR, priority);
}

/// Evaluation of pending virtual interrupts (29.2.1).
fn evaluate(cpu: &mut Cpu) {
    let Some(guest) = &cpu.arch.vmx.guest else { return };
    let priority = cpu.virtual_apic(guest.controls.virtual_apic).read(register::PPR) as u8;
    let pending = !guest.controls.proc.contains(ProcControls::INTERRUPT_WINDOW)
        && guest.interrupts.requesting >> 4 > priority >> 4;
    if let Some(guest) = &mut cpu.arch.vmx.guest {
        guest.interrupts.pending = pending;
    }
    if pending {
        cpu.run.attention |= attention::INTERRUPTS;
    }
}

/// EOI virtualization (29.1.4).
pub(super) fn end_of_interrupt(cpu: &mut Cpu) {
    let Some(guest) = &cpu.arch.vmx.guest else { return };
    let vector = guest.interrupts.servicing;
    let exits = guest.controls.eoi_exit[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0;
    let apic = cpu.virtual_apic(guest.controls.virtual_apic);
    apic.set(register::ISR, vector, false);
    let servicing = apic.highest(register::ISR);
    if let Some(guest) = &mut cpu.arch.vmx.guest {
        guest.interrupts.servicing = servicing;
    }
    update_priority(cpu);
    if exits {
        window::pend(cpu, VmExit::new(ExitReason::VirtualizedEoi).qualified(vector.into()));
    } else {
        evaluate(cpu);
    }
}

/// Self-IPI virtualization (29.1.5).
pub(super) fn self_ipi(cpu: &mut Cpu, vector: u8) {
    let Some(guest) = &cpu.arch.vmx.guest else { return };
    cpu.virtual_apic(guest.controls.virtual_apic).set(register::IRR, vector, true);
    request(cpu, vector);
}

/// A vector, or none (0), was set in VIRR.
fn request(cpu: &mut Cpu, vector: u8) {
    if let Some(guest) = &mut cpu.arch.vmx.guest {
        guest.interrupts.requesting = guest.interrupts.requesting.max(vector);
    }
    evaluate(cpu);
}

/// Whether a virtual interrupt is recognized, and the guest can take it.
pub(crate) fn is_deliverable(cpu: &Cpu) -> bool {
    cpu.arch.vmx.guest.as_ref().is_some_and(|guest| guest.interrupts.pending)
        && cpu.arch.system_flags.contains(Rflags::IF)
        && cpu.arch.shadow == Shadow::None
}

/// Delivers a pending virtual interrupt if the guest can take it (29.2.2).
///
/// # Errors
///
/// As [`event::deliver`].
pub(super) fn deliver(cpu: &mut Cpu) -> Result<(), Exit> {
    if !is_deliverable(cpu) || debugger::holds_interrupts(cpu) {
        return Ok(());
    }
    let Some(guest) = &cpu.arch.vmx.guest else { return Ok(()) };
    let vector = guest.interrupts.requesting;
    let apic = cpu.virtual_apic(guest.controls.virtual_apic);
    apic.set(register::ISR, vector, true);
    apic.write(register::PPR, u32::from(vector & 0xf0));
    apic.set(register::IRR, vector, false);
    let requesting = apic.highest(register::IRR);
    if let Some(guest) = &mut cpu.arch.vmx.guest {
        guest.interrupts = VirtualInterrupts { requesting, servicing: vector, pending: false };
    }
    event::deliver(cpu, Event::plain(vector, Kind::External))?;
    window::attend_first(cpu)
}

/// Posted-interrupt descriptor (29.6): 256 bits of requests (PIR), and after them the bit that says that
/// a notification is outstanding (ON).
mod posted {
    pub(super) const WORDS: usize = 4;
    pub(super) const NOTIFICATION: usize = 8 * WORDS;
    pub(super) const OUTSTANDING: u64 = 1 << 0;
}

/// Processes posted interrupts after the notification `vector` (29.6); `false` if `vector` is none.
pub(super) fn take_posted(cpu: &mut Cpu, vector: u8) -> bool {
    let Some(controls) = cpu.guest_controls() else { return false };
    if !controls.is_notification(vector) {
        return false;
    }
    let (address, virtual_apic) = (controls.posted_descriptor, controls.virtual_apic);
    let at = |offset: usize| address as usize + offset;
    let clear_notification = |word| word & !posted::OUTSTANDING;
    cpu.apic_acknowledge(vector);
    cpu.physical_page(address).update(at(posted::NOTIFICATION), clear_notification);
    cpu.apic_eoi();
    let mut highest = 0;
    for n in 0..posted::WORDS {
        let requests = cpu.physical_page(address).update(at(8 * n), |_| 0);
        let apic = cpu.virtual_apic(virtual_apic);
        for (half, number) in [requests as u32, (requests >> 32) as u32]
            .into_iter()
            .zip(register::IRR + 2 * n as u32..)
        {
            apic.write(number, apic.read(number) | half);
        }
        if requests != 0 {
            highest = 64 * n as u8 + requests.ilog2() as u8;
        }
    }
    request(cpu, highest);
    true
}
