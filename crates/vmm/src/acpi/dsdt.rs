//! Differentiated System Description Table: what a guest cannot find by itself.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, BufferData, Device, EISAName, Equal, IO, If,
    Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, bytes_of};
use cloister_devices::{Node, POWER_BUTTON_GSI, Place, S5_SLEEP_TYPE};

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
    devices.push(power_button());
    devices.push(generic_events());
    devices.extend(platform.devices.iter().filter_map(described));
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

/// A device of the machine's list, if the list says what to call it: its registers and its interrupt.
fn described(node: &Node) -> Option<Box<dyn Aml>> {
    let acpi = node.acpi.as_ref()?;
    let mut resources = match node.place {
        Place::Ports { first, len } => bytes_of(&IO::new(first, first, 1, len as u8)),
        Place::Memory { base, len } => bytes_of(&Memory32Fixed::new(true, base as u32, len as u32)),
    };
    if let Some(gsi) = node.gsi {
        resources.extend(bytes_of(&Interrupt::new(true, acpi.edge, false, false, gsi)));
    }
    let resources = Encoded(resources);
    let resources = ResourceTemplate::new(vec![&resources]);
    // An EISA ID has seven characters, an ACPI ID eight.
    let eisa = (acpi.hid.len() == 7).then(|| EISAName::new(acpi.hid));
    let hid: &dyn Aml = eisa.as_ref().map_or(&acpi.hid, |eisa| eisa);
    let hid = Name::new("_HID".into(), hid);
    let uid = acpi.uid.map(|uid| Name::new("_UID".into(), &uid));
    let crs = Name::new("_CRS".into(), &resources);
    let mut children: Vec<&dyn Aml> = vec![&hid];
    children.extend(uid.as_ref().map(|uid| uid as &dyn Aml));
    children.push(&crs);
    Some(device(&acpi.name, children))
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
