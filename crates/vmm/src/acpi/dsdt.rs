//! Differentiated System Description Table: what a guest cannot find by itself.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, BufferData, EISAName, Name, Package, ResourceTemplate,
    Scope,
};
use acpi_tables::sdt::Sdt;
use cloister_devices::{AmlBytes, S5_SLEEP_TYPE};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, bytes_of};

const HEADER_LEN: u32 = 36;
/// _STA: present, enabled, shown, functioning (ACPI 6.4, 6.3.7).
const PRESENT: u8 = 0x0f;

pub(super) fn table(platform: &Platform<'_>) -> Sdt {
    let mut table = Sdt::new(*b"DSDT", HEADER_LEN, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // The package has one meaning on a hardware-reduced platform: its first element.
    let s5 = Package::new(vec![&S5_SLEEP_TYPE, &0_u8, &0_u8, &0_u8]);
    table.append_slice(&bytes_of(&Name::new("_S5_".into(), &s5)));

    let mut devices: Vec<AmlBytes> = (0..platform.cpus).map(processor).collect();
    devices.extend(platform.devices.iter().map(|node| node.aml.clone()));
    if !platform.layout.epc().is_empty() {
        devices.push(epc(platform.layout.epc()));
    }
    let devices = devices.iter().map(|device| device as &dyn Aml).collect();
    table.append_slice(&bytes_of(&Scope::new("_SB_".into(), devices)));
    table
}

fn processor(id: u32) -> AmlBytes {
    AmlBytes::device(
        &format!("C{id:03X}"),
        vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &id)],
    )
}

/// The Enclave Page Cache: one device whose resources are all sections, as on Intel's firmware
/// and QEMU.
fn epc(sections: &[Range<u64>]) -> AmlBytes {
    let ranges: Vec<_> = sections
        .iter()
        .map(|range| {
            AddressSpace::new_memory(
                AddressSpaceCacheable::Cacheable,
                true,
                range.start,
                range.end - 1,
                None,
            )
        })
        .collect();
    let resources = ResourceTemplate::new(ranges.iter().map(|range| range as &dyn Aml).collect());
    let description = "Enclave Page Cache 1.0\0".encode_utf16().flat_map(u16::to_le_bytes);
    AmlBytes::device(
        "EPC_",
        vec![
            &Name::new("_HID".into(), &EISAName::new("INT0E0C")),
            &Name::new("_STR".into(), &BufferData::new(description.collect())),
            &Name::new("_CRS".into(), &resources),
            &Name::new("_STA".into(), &PRESENT),
        ],
    )
}
