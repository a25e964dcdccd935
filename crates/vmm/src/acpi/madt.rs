//! Multiple APIC Description Table (ACPI 6.4, 5.2.12). PCAT_COMPAT is zero: there is no 8259.

use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::config::MAX_CPUS;
use crate::layout::{IOAPIC_BASE, LOCAL_APIC_BASE};

/// The IOAPIC's ID register after reset.
const IOAPIC_ID: u8 = 0;

// An APIC ID beyond 254 would need a Processor Local x2APIC structure.
const _: () = assert!(MAX_CPUS < 255);

pub(super) fn table(cpus: u32) -> MADT {
    let local = LocalInterruptController::Address(below_4_gib(LOCAL_APIC_BASE));
    let mut table = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, local);
    for id in 0..u8::try_from(cpus).expect("no more than MAX_CPUS processors") {
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(IOAPIC_ID, below_4_gib(IOAPIC_BASE), 0));
    table
}

/// An address of the 32-bit hole.
fn below_4_gib(address: u64) -> u32 {
    u32::try_from(address).expect("interrupt chips lie in the 32-bit hole")
}
