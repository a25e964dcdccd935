use cloister_devices::virtio::MmioTransport;
use cloister_devices::{PowerButton, Rtc, SerialPort};

use super::*;
use crate::layout::{LOW_RAM_LIMIT, virtio_slot};

const MIB: u64 = 1 << 20;

fn image(cpus: u32, slots: usize, epc: &[u64]) -> Vec<u8> {
    let layout = Layout::new(512 * MIB, epc).unwrap();
    let slots = (0..slots as u32).map(|slot| {
        let (base, gsi) = virtio_slot(slot);
        MmioTransport::node(slot, "blk", base, gsi)
    });
    let devices: Vec<_> =
        [PowerButton::node(), SerialPort::node(), Rtc::node()].into_iter().chain(slots).collect();
    let devices: Vec<_> = devices.iter().collect();
    build(&Platform { layout: &layout, cpus, nodes: &[], epc_nodes: &[], devices: &devices })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

/// The table at a guest-physical address, cut to the length in its header.
fn table_at(image: &[u8], address: u64) -> &[u8] {
    let table = &image[(address - ACPI_START) as usize..];
    &table[..u32_at(table, 4) as usize]
}

/// The tables that the XSDT names, in its order.
fn tables(image: &[u8]) -> Vec<&[u8]> {
    let xsdt = table_at(image, u64_at(image, 24));
    xsdt[36..].chunks_exact(8).map(|entry| table_at(image, u64_at(entry, 0))).collect()
}

fn find<'a>(image: &'a [u8], signature: &[u8; 4]) -> &'a [u8] {
    tables(image).into_iter().find(|table| table.starts_with(signature)).unwrap()
}

fn dsdt(image: &[u8]) -> &[u8] {
    table_at(image, u64_at(find(image, b"FACP"), 140))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn every_table_from_the_rsdp_on_sums_to_zero() {
    for (cpus, slots, epc) in [(1, 0, vec![]), (4, 3, vec![64 * MIB]), (64, 12, vec![MIB; 8])] {
        let image = image(cpus, slots, &epc);

        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!((sum(&image[..20]), sum(&image[..36])), (0, 0));
        let xsdt = table_at(&image, u64_at(&image, 24));
        let signatures: Vec<_> = tables(&image).iter().map(|table| &table[..4]).collect();
        assert_eq!(signatures, [b"FACP", b"APIC", b"SRAT"]);
        for table in tables(&image).into_iter().chain([xsdt, dsdt(&image)]) {
            assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(&table[..4]));
        }
        assert!((image.len() as u64) < ACPI_END - ACPI_START);
    }
}

#[test]
fn the_fadt_is_hardware_reduced_with_reset_and_sleep_registers() {
    let image = image(1, 0, &[]);

    let fadt = find(&image, b"FACP");

    assert_eq!(fadt.len(), 276);
    let flags = u32_at(fadt, 112);
    assert_ne!(flags & 1 << 20, 0, "HW_REDUCED_ACPI");
    assert_ne!(flags & 1 << 10, 0, "RESET_REG_SUP");
    assert_eq!(&fadt[116..129], [1, 8, 0, 1, 0x02, 6, 0, 0, 0, 0, 0, 0, RESET]);
    assert_eq!(&fadt[244..256], [1, 8, 0, 1, 0x00, 6, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&fadt[256..268], [1, 8, 0, 1, 0x01, 6, 0, 0, 0, 0, 0, 0]);
}

const RESET: u8 = cloister_devices::RESET_VALUE;

#[test]
fn the_madt_has_each_local_apic_the_ioapic_and_no_8259() {
    let image = image(3, 0, &[]);

    let madt = find(&image, b"APIC");

    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 0));
    assert_eq!(
        madt[44..],
        [
            [0, 8, 0, 0, 1, 0, 0, 0].as_slice(),
            &[0, 8, 1, 1, 1, 0, 0, 0],
            &[0, 8, 2, 2, 1, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        ]
        .concat()
    );
}

/// A processor's APIC ID, node and flags.
type Processor = (u8, u8, u32);
/// A memory range's node, base, length and flags.
type Memory = (u32, u64, u64, u8);

/// The processors and the memory of the SRAT.
fn affinities(platform: &Platform<'_>) -> (Vec<Processor>, Vec<Memory>) {
    let image = build(platform);
    let srat = find(&image, b"SRAT");
    let mut at = 48;
    let (mut processors, mut memory) = (Vec::new(), Vec::new());
    while at < srat.len() {
        let entry = &srat[at..at + usize::from(srat[at + 1])];
        match entry[0] {
            0 => processors.push((entry[3], entry[2], u32_at(entry, 4))),
            1 => memory.push((u32_at(entry, 2), u64_at(entry, 8), u64_at(entry, 16), entry[28])),
            other => panic!("structure of type {other}"),
        }
        at += entry.len();
    }
    (processors, memory)
}

const HIGH: u64 = 1 << 32;

#[test]
fn without_nodes_the_srat_places_processors_ram_and_epc_on_node_0() {
    let layout = Layout::new(4 << 30, &[64 * MIB, 32 * MIB]).unwrap();
    let platform =
        Platform { layout: &layout, cpus: 2, nodes: &[], epc_nodes: &[0, 0], devices: &[] };

    let (processors, memory) = affinities(&platform);

    assert_eq!(processors, [(0, 0, 1), (1, 0, 1)]);
    assert_eq!(
        memory,
        [
            (0, 0, LOW_RAM_LIMIT, 1),
            (0, HIGH, HIGH - LOW_RAM_LIMIT, 1),
            (0, HIGH + (1 << 30), 64 * MIB, 1),
            (0, HIGH + (1 << 30) + 64 * MIB, 32 * MIB, 1),
        ]
    );
}

#[test]
fn the_srat_places_processors_ram_and_epc_on_their_nodes() {
    let layout = Layout::new(4 << 30, &[64 * MIB, 32 * MIB]).unwrap();
    let nodes =
        [NodeConfig { cpus: vec![1], ram: 1 << 30 }, NodeConfig { cpus: vec![0, 2], ram: 3 << 30 }];
    let platform =
        Platform { layout: &layout, cpus: 3, nodes: &nodes, epc_nodes: &[1, 0], devices: &[] };

    let (processors, memory) = affinities(&platform);

    assert_eq!(processors, [(0, 1, 1), (1, 0, 1), (2, 1, 1)]);
    assert_eq!(
        memory,
        [
            (0, 0, 1 << 30, 1),
            (1, 1 << 30, 2 << 30, 1),
            (1, HIGH, 1 << 30, 1),
            (1, HIGH + (1 << 30), 64 * MIB, 1),
            (0, HIGH + (1 << 30) + 64 * MIB, 32 * MIB, 1),
        ]
    );
}

#[test]
fn the_dsdt_has_the_epc_device_only_with_epc() {
    // INT0E0C as a compressed EISA ID (ACPI 6.4, 19.3.4), and a QWord memory descriptor of the
    // first section: 0x100000000, 64 MiB.
    let hid = [0x25, 0xd4, 0x0e, 0x0c];
    let range = [
        0x8a, 0x2b, 0, 0, 0x0c, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff,
        0xff, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0,
    ];

    let with = image(1, 0, &[64 * MIB]);
    let without = image(1, 0, &[]);

    assert!(contains(dsdt(&with), &hid) && contains(dsdt(&with), &range));
    assert!(!contains(dsdt(&without), &hid));
}

#[test]
fn the_dsdt_has_a_device_for_each_processor_and_virtio_slot() {
    let image = image(17, 11, &[]);

    let dsdt = dsdt(&image);

    let count = |part: &[u8]| dsdt.windows(part.len()).filter(|window| *window == part).count();
    assert_eq!(count(b"ACPI0007"), 17);
    assert_eq!(count(b"LNRO0005"), 11);
    assert!(contains(dsdt, b"C010") && contains(dsdt, b"VR0A"));
}

#[test]
fn the_dsdt_has_the_registers_and_the_interrupt_of_each_device_that_is_to_be_found() {
    // PNP0501, ports 3F8H to 3FFH and interrupt 4 by edges; the first virtio device's memory and its
    // interrupt 12 by level (ACPI 6.4, 6.4.2.5, 6.4.3.4 and 6.4.3.6).
    let serial = [
        &[0x41, 0xd0, 0x05, 0x01][..],
        &[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x89, 6, 0, 0x03, 1, 4, 0, 0, 0],
    ];
    let virtio = [0x86, 9, 0, 1, 0, 0, 0, 0xd0, 0, 2, 0, 0, 0x89, 6, 0, 0x01, 1, 12, 0, 0, 0];

    let image = image(1, 1, &[]);

    let dsdt = dsdt(&image);
    for part in [serial[0], serial[1], &virtio] {
        assert!(contains(dsdt, part), "{part:x?}");
    }
}

#[test]
fn the_power_button_is_notified_by_the_event_device_on_its_interrupt() {
    // PNP0C0C as a compressed EISA ID (ACPI 6.4, 19.3.4), and an extended interrupt descriptor:
    // consumer, edge, active high, exclusive, one interrupt, number 9 (6.4.3.6).
    let button = [0x41, 0xd0, 0x0c, 0x0c];
    let interrupt = [0x89, 6, 0, 0x03, 1, 9, 0, 0, 0];
    // Method (_EVT, 1, Serialized) { If (Arg0 == 9) { Notify (PWRB, 0x80) } } (20.2.5).
    let method = [
        &[0x14, 0x13][..],
        b"_EVT",
        &[0x09, 0xa0, 0x0c, 0x93, 0x68, 0x0a, 9, 0x86],
        b"PWRB",
        &[0x0a, 0x80],
    ]
    .concat();

    let image = image(1, 0, &[]);

    let dsdt = dsdt(&image);
    assert!(contains(dsdt, b"ACPI0013"));
    for part in [&button[..], &interrupt, &method] {
        assert!(contains(dsdt, part), "{part:x?}");
    }
}

/// Writes the tables for a disassembler: `CLOISTER_ACPI_DUMP=DIR cargo test acpi -- --ignored`,
/// then `iasl -d` on each file.
#[test]
#[ignore = "writes files for iasl; needs CLOISTER_ACPI_DUMP"]
fn dump_tables() {
    let directory = std::env::var("CLOISTER_ACPI_DUMP").expect("CLOISTER_ACPI_DUMP names it");
    let image = image(4, 3, &[64 * MIB, 32 * MIB]);

    for table in tables(&image).into_iter().chain([dsdt(&image)]) {
        let name = String::from_utf8_lossy(&table[..4]).to_lowercase();
        std::fs::write(format!("{directory}/{name}.dat"), table).unwrap();
    }
}
