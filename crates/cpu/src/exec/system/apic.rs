//! The local APIC (SDM Vol. 3A, chapter 10).

use std::time::Duration;

use cloister_x86::Gpa;

use crate::exit::Exit;
use crate::state::{Cpu, Shared, attention};

/// Interrupts that other threads have posted to a local APIC.
#[derive(Debug, Default)]
pub struct Inbox {}

/// A local APIC.
#[derive(Debug, Default)]
pub struct LocalApic {}

impl LocalApic {
    /// IA32_APIC_BASE.EN, which CPUID.1:EDX.APIC follows.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        true
    }

    /// Whether the xAPIC register page is at `gpa`.
    #[must_use]
    pub fn claims(&self, _gpa: Gpa) -> bool {
        false
    }
}

impl Shared {
    /// Takes a message-signalled interrupt from a device or the I/O APIC (SDM Vol. 3A, 10.11) and
    /// posts it to the local APICs that it names. Called from any thread.
    pub fn deliver_msi(&self, _address: u64, _data: u32) {}
}

impl Cpu {
    /// Reads xAPIC registers.
    pub fn apic_mmio_read(&mut self, _gpa: Gpa, _len: usize) -> u64 {
        0
    }

    /// Writes an xAPIC register.
    pub fn apic_mmio_write(&mut self, _gpa: Gpa, _len: usize, _value: u64) {}
}

/// Takes what other threads have posted: interrupts into IRR, NMI, INIT and start-up IPIs.
///
/// # Errors
///
/// An exit that the owner has to act on.
pub fn take_inbox(_cpu: &mut Cpu) -> Result<(), Exit> {
    Ok(())
}

/// Fires the timer if it is due.
pub fn poll_timer(_cpu: &mut Cpu) {}

/// Time until the timer fires; `None` if it is not armed or masked.
#[must_use]
pub fn time_to_timer(_cpu: &Cpu) -> Option<Duration> {
    None
}

/// Delivers the highest-priority pending NMI or interrupt if the processor can take it now, and
/// wakes it from HLT.
///
/// # Errors
///
/// An exit that delivery caused.
pub fn deliver_interrupt(cpu: &mut Cpu) -> Result<(), Exit> {
    cpu.attention &= !attention::INTERRUPTS;
    Ok(())
}
