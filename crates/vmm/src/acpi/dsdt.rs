//! Differentiated System Description Table: what a guest cannot find by itself.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, BufferData, Device, EISAName, Equal, IO, If,
    Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, bytes_of};
use crate::devices::virtio::MmioSlot;
use crate::devices::{
    COM1_GSI, COM1_LEN, COM1_PORT, POWER_BUTTON_GSI, RTC_GSI, RTC_LEN, RTC_PORT, S5_SLEEP_TYPE,
};
use crate::layout::{VIRTIO_GSI, VIRTIO_MMIO_BASE};

const HEADER_LEN: u32 = 36;
/// _STA: present, enabled, shown, functioning (ACPI 6.4, 6.3.7).
const PRESENT: u8 = 0x0f;
/// Notification value of a power button that was pressed (ACPI 6.4, table 5.197).
const BUTTON_PRESSED: u8 = 0x80;

pub(super) fn table(platform: &Platform<'_>) -> Sdt {
    let mut table = Sdt::new(*b"DSDT", HEADER_LEN, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // The package has one meaning on a hardware-reduced platform: its first element.
    let s5 = Package::new(vec![&S5_SLEEP_TYPE, &0_u8, &0_u8, &0_u8]);
    table.append_slice(&bytes_of(&Name::new("_S5_".into(), &s5)));

    let mut devices: Vec<Box<dyn Aml>> = (0..platform.cpus).map(processor).collect();
    devices.push(serial());
    devices.push(real_time_clock());
    devices.push(power_button());
    devices.push(generic_events());
    devices.extend((0..platform.virtio_slots as u32).map(virtio));
    if !platform.layout.epc().is_empty() {
        devices.push(epc(platform.layout.epc()));
    }
    let devices = devices.iter().map(|device| &**device as &dyn Aml).collect();
    table.append_slice(&bytes_of(&Scope::new("_SB_".into(), devices)));
    table
}

/// Bytes of AML that are already put together, for a device whose parts are gone.
struct Encoded(Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn device(name: &str, children: Vec<&dyn Aml>) -> Box<dyn Aml> {
    Box::new(Encoded(bytes_of(&Device::new(name.into(), children))))
}

fn processor(id: u32) -> Box<dyn Aml> {
    device(
        &format!("C{id:03X}"),
        vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &id)],
    )
}

fn serial() -> Box<dyn Aml> {
    let ports = IO::new(COM1_PORT, COM1_PORT, 1, COM1_LEN as u8);
    let interrupt = Interrupt::new(true, true, false, false, COM1_GSI);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    device(
        "COM1",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_CRS".into(), &resources),
        ],
    )
}

fn real_time_clock() -> Box<dyn Aml> {
    let ports = IO::new(RTC_PORT, RTC_PORT, 1, RTC_LEN as u8);
    let interrupt = Interrupt::new(true, true, false, false, RTC_GSI);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    device(
        "RTC_",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_CRS".into(), &resources),
        ],
    )
}

/// The control-method power button (ACPI 6.4, 4.8.2.2.1.2): what it is, and no more.
fn power_button() -> Box<dyn Aml> {
    device("PWRB", vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C"))])
}

/// The Generic Event Device (ACPI 6.4, 5.6.9): a hardware-reduced platform has no other way to tell
/// events. `_EVT` gets the number of the interrupt that came.
fn generic_events() -> Box<dyn Aml> {
    let interrupt = Interrupt::new(true, true, false, false, POWER_BUTTON_GSI);
    let resources = ResourceTemplate::new(vec![&interrupt]);
    let button = Path::new("PWRB");
    let notify = Notify::new(&button, &BUTTON_PRESSED);
    let event = Equal::new(&Arg(0), &POWER_BUTTON_GSI);
    let dispatch = If::new(&event, vec![&notify]);
    device(
        "GED_",
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_CRS".into(), &resources),
            &Method::new("_EVT".into(), 1, true, vec![&dispatch]),
        ],
    )
}

/// A virtio-mmio slot. Its interrupt is level triggered: asserted until InterruptACK.
fn virtio(slot: u32) -> Box<dyn Aml> {
    let place = MmioSlot::nth(VIRTIO_MMIO_BASE, VIRTIO_GSI, slot);
    let registers = Memory32Fixed::new(true, place.base as u32, place.len as u32);
    let interrupt = Interrupt::new(true, false, false, false, place.gsi);
    let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
    device(
        &format!("VR{slot:02X}"),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &slot),
            &Name::new("_CRS".into(), &resources),
        ],
    )
}

/// The Enclave Page Cache: one device whose resources are all sections, as on Intel's firmware
/// and QEMU.
fn epc(sections: &[Range<u64>]) -> Box<dyn Aml> {
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
    device(
        "EPC_",
        vec![
            &Name::new("_HID".into(), &EISAName::new("INT0E0C")),
            &Name::new("_STR".into(), &BufferData::new(description.collect())),
            &Name::new("_CRS".into(), &resources),
            &Name::new("_STA".into(), &PRESENT),
        ],
    )
}
