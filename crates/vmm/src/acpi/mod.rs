//! ACPI tables of a hardware-reduced platform (ACPI 6.4): RSDP, XSDT, FADT, MADT, SRAT, DSDT.

mod dsdt;
mod fadt;
mod madt;
mod srat;

use acpi_tables::{Aml, rsdp::Rsdp, xsdt::XSDT};
use cloister_devices::Node;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::layout::{ACPI_END, ACPI_START, Layout};
use crate::nodes::NodeConfig;

const OEM_ID: [u8; 6] = *b"CLOIST";
const OEM_TABLE_ID: [u8; 8] = *b"CLOISTER";
const OEM_REVISION: u32 = 1;

/// Tables begin at multiples of this, for the reader of a dump.
const TABLE_ALIGN: usize = 16;

/// What the tables describe.
#[derive(Clone, Copy, Debug)]
pub struct Platform<'a> {
    /// RAM and EPC.
    pub layout: &'a Layout,
    /// Processors, APIC IDs from 0.
    pub cpus: u32,
    /// NUMA nodes; none stand for one that has everything.
    pub nodes: &'a [NodeConfig],
    /// The node of each EPC section, in the layout's order; one that is not named is on node 0.
    pub epc_nodes: &'a [u32],
    /// The devices.
    pub devices: &'a [&'a Node],
}

/// The tables could not be put into guest RAM.
#[derive(Debug, Error)]
pub enum AcpiError {
    /// They are larger than the area they have.
    #[error("the ACPI tables are {0} bytes, more than their area holds")]
    TooLarge(usize),
    /// The area is not RAM.
    #[error("cannot write the ACPI tables to guest RAM")]
    Ram(#[from] GuestMemoryError),
}

/// Writes the tables and returns the guest-physical address of the RSDP.
///
/// # Errors
///
/// [`AcpiError`] when the tables do not fit in the area that the memory map gives them.
pub fn write_tables(ram: &GuestMemoryMmap, platform: &Platform<'_>) -> Result<u64, AcpiError> {
    let tables = build(platform);
    if tables.len() as u64 > ACPI_END - ACPI_START {
        return Err(AcpiError::TooLarge(tables.len()));
    }
    ram.write_slice(&tables, GuestAddress(ACPI_START))?;
    Ok(ACPI_START)
}

/// The tables as they lie at [`ACPI_START`], the RSDP first.
fn build(platform: &Platform<'_>) -> Vec<u8> {
    let mut image = vec![0; Rsdp::len()];
    let dsdt = place(&mut image, &dsdt::table(platform));
    let tables = [
        place(&mut image, &fadt::table(dsdt)),
        place(&mut image, &madt::table(platform.cpus)),
        place(&mut image, &srat::table(platform)),
    ];
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in tables {
        xsdt.add_entry(table);
    }
    let xsdt = place(&mut image, &xsdt);
    let rsdp = bytes_of(&Rsdp::new(OEM_ID, xsdt));
    image[..rsdp.len()].copy_from_slice(&rsdp);
    image
}

/// Appends a table and returns its guest-physical address.
fn place(image: &mut Vec<u8>, table: &dyn Aml) -> u64 {
    image.resize(image.len().next_multiple_of(TABLE_ALIGN), 0);
    let address = ACPI_START + image.len() as u64;
    table.to_aml_bytes(image);
    address
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
