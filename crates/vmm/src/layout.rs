//! The guest-physical address map.
//!
//! ```text
//! 0                 low RAM: boot structures and ACPI tables in the first MiB
//! up to C000_0000   the rest of low RAM
//! C000_0000         the 32-bit hole: virtio-mmio, IOAPIC, local APIC
//! 1_0000_0000       high RAM
//! next 2 MiB        EPC sections, each 2 MiB aligned, at most eight
//! ```
//!
//! Every sum over sizes that a user gave is checked against [`PHYS_BITS`].

use std::ops::Range;

use cloister_boot::{MapEntry, MemoryMap, RangeKind};
use cloister_x86::PAGE_SIZE;
use thiserror::Error;

use crate::size::format_size;

/// MAXPHYADDR of the guest, reported in CPUID 80000008H: 64 TiB, as on an Ice Lake server.
pub const PHYS_BITS: u32 = 46;
/// First address past low RAM when there is enough RAM to reach it.
pub const LOW_RAM_LIMIT: u64 = 0xc000_0000;
/// First virtio-mmio register block; the others follow.
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Distance from one virtio-mmio register block to the next.
pub const VIRTIO_MMIO_SPACING: u64 = PAGE_SIZE;
/// Register block of the IOAPIC.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// Register block of the local APICs (SDM Vol. 3A, 10.4.1).
pub const LOCAL_APIC_BASE: u64 = 0xfee0_0000;
/// First address past the 32-bit hole.
pub const HIGH_RAM_BASE: u64 = 1 << 32;
/// Alignment of an EPC section, as QEMU lays them out.
pub const EPC_ALIGN: u64 = 2 << 20;
/// EPC sections that Linux reads from CPUID 12H (`SGX_MAX_EPC_SECTIONS`).
pub const MAX_EPC_SECTIONS: usize = 8;
/// Least RAM: the first MiB belongs to the firmware's structures, the rest to a small kernel.
pub const MIN_RAM: u64 = 2 << 20;

/// Conventional RAM below the extended BIOS data area of a PC.
pub const EBDA_START: u64 = 0x9_fc00;
/// Where the ACPI tables begin: the area that is searched for an RSDP (ACPI 6.5, 5.2.5.1).
pub const ACPI_START: u64 = 0xe_0000;
/// First address past the ACPI tables and the first MiB.
pub const ACPI_END: u64 = 0x10_0000;

/// First port of the ACPI sleep and reset registers.
pub const POWER_PORT: u16 = 0x600;
/// IOAPIC input of the first virtio-mmio slot; the others follow.
pub const VIRTIO_GSI: u32 = 12;
/// Virtio-mmio slots: as many as IOAPIC inputs are left.
pub const MAX_VIRTIO_SLOTS: usize = 12;

/// Registers and IOAPIC input of the `index`-th virtio-mmio slot, below [`MAX_VIRTIO_SLOTS`].
#[must_use]
pub fn virtio_slot(index: u32) -> (u64, u32) {
    (VIRTIO_MMIO_BASE + u64::from(index) * VIRTIO_MMIO_SPACING, VIRTIO_GSI + index)
}

/// Why a machine of the asked sizes cannot be laid out.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LayoutError {
    /// Too little RAM.
    #[error("{} of RAM is too little to boot from: write at least {}", format_size(*.0), format_size(MIN_RAM))]
    TooSmall(u64),
    /// RAM does not fit in the guest-physical address space.
    #[error(
        "{} of RAM does not fit in the {PHYS_BITS}-bit physical address space of the guest: \
         write less than 64T", format_size(*.0)
    )]
    RamTooLarge(u64),
    /// An EPC section does not fit in the guest-physical address space.
    #[error(
        "an EPC section of {} does not fit above {:#x} in the {PHYS_BITS}-bit physical address \
         space of the guest: give it or the RAM a smaller size", format_size(*.size), .base
    )]
    EpcTooLarge {
        /// Which section, from 0.
        section: usize,
        /// Its size in bytes.
        size: u64,
        /// Where it would begin.
        base: u64,
    },
    /// More EPC sections than an operating system reads.
    #[error(
        "{0} EPC sections are more than the {MAX_EPC_SECTIONS} that Linux reads: leave some out"
    )]
    TooManySections(usize),
}

/// Where RAM and EPC are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    low_ram: u64,
    high_ram: u64,
    epc: Vec<Range<u64>>,
}

impl Layout {
    /// Lays out `ram` bytes of RAM and EPC sections of the given sizes, in their order. All sizes
    /// are multiples of the page size.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] when there is too little RAM, there are too many sections, or something
    /// does not fit below 2^[`PHYS_BITS`].
    pub fn new(ram: u64, epc: &[u64]) -> Result<Self, LayoutError> {
        debug_assert!(ram.is_multiple_of(PAGE_SIZE));
        if ram < MIN_RAM {
            return Err(LayoutError::TooSmall(ram));
        }
        if epc.len() > MAX_EPC_SECTIONS {
            return Err(LayoutError::TooManySections(epc.len()));
        }
        let low_ram = ram.min(LOW_RAM_LIMIT);
        let high_ram = ram - low_ram;
        let limit = 1_u64 << PHYS_BITS;
        let mut next = HIGH_RAM_BASE
            .checked_add(high_ram)
            .filter(|&end| end <= limit)
            .ok_or(LayoutError::RamTooLarge(ram))?;
        let mut sections = Vec::with_capacity(epc.len());
        for (section, &size) in epc.iter().enumerate() {
            // Cannot overflow: `next` is at most 2^46.
            let base = next.next_multiple_of(EPC_ALIGN);
            next = base
                .checked_add(size)
                .filter(|&end| end <= limit)
                .ok_or(LayoutError::EpcTooLarge { section, size, base })?;
            sections.push(base..next);
        }
        Ok(Self { low_ram, high_ram, epc: sections })
    }

    /// The ranges of RAM, in ascending order.
    #[must_use]
    pub fn ram(&self) -> Vec<Range<u64>> {
        let low = 0..self.low_ram;
        let high = HIGH_RAM_BASE..HIGH_RAM_BASE + self.high_ram;
        [low, high].into_iter().filter(|range| !range.is_empty()).collect()
    }

    /// First address past low RAM: what 32-bit addresses of the boot protocols can name.
    #[must_use]
    pub const fn low_ram_end(&self) -> u64 {
        self.low_ram
    }

    /// The EPC sections, in the order they were given.
    #[must_use]
    pub fn epc(&self) -> &[Range<u64>] {
        &self.epc
    }

    /// Bits of guest-physical addresses that RAM, EPC and the 32-bit hole take.
    #[must_use]
    pub fn address_bits(&self) -> u32 {
        let ends = self.ram().into_iter().chain(self.epc.iter().cloned()).map(|range| range.end);
        let end = ends.fold(HIGH_RAM_BASE, u64::max);
        (end - 1).ilog2() + 1
    }

    /// The memory map for e820 and PVH: ascending, no entry touches another's bytes. At most 15
    /// entries: six fixed ones, high RAM, eight EPC sections.
    #[must_use]
    pub fn memory_map(&self) -> MemoryMap {
        let mut entries = vec![
            MapEntry { range: 0..EBDA_START, kind: RangeKind::Ram },
            MapEntry { range: EBDA_START..ACPI_START, kind: RangeKind::Reserved },
            MapEntry { range: ACPI_START..ACPI_END, kind: RangeKind::Acpi },
            MapEntry { range: ACPI_END..self.low_ram, kind: RangeKind::Ram },
            MapEntry { range: IOAPIC_BASE..IOAPIC_BASE + PAGE_SIZE, kind: RangeKind::Reserved },
            MapEntry {
                range: LOCAL_APIC_BASE..LOCAL_APIC_BASE + PAGE_SIZE,
                kind: RangeKind::Reserved,
            },
        ];
        entries.extend(
            self.ram().into_iter().skip(1).map(|range| MapEntry { range, kind: RangeKind::Ram }),
        );
        entries.extend(
            self.epc
                .iter()
                .map(|range| MapEntry { range: range.clone(), kind: RangeKind::Reserved }),
        );
        MemoryMap { low_ram_end: self.low_ram, entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_ram_is_low_ram_and_epc_begins_at_4_gib() {
        let layout = Layout::new(512 << 20, &[64 << 20]).unwrap();

        assert_eq!((layout.ram().len(), &layout.ram()[0]), (1, &(0..512 << 20)));
        assert_eq!((layout.epc().len(), &layout.epc()[0]), (1, &(0x1_0000_0000..0x1_0400_0000)));
    }

    #[test]
    fn ram_beyond_3_gib_continues_at_4_gib_and_epc_follows_it() {
        let layout = Layout::new((4 << 30) + 4096, &[4096, 64 << 30]).unwrap();

        assert_eq!(layout.ram(), [0..0xc000_0000, 0x1_0000_0000..0x1_4000_1000]);
        assert_eq!(layout.epc(), [0x1_4020_0000..0x1_4020_1000, 0x1_4040_0000..0x11_4040_0000]);
        assert_eq!(layout.address_bits(), 37);
        assert_eq!(Layout::new(512 << 20, &[]).unwrap().address_bits(), 32);
    }

    #[test]
    fn sizes_at_and_past_the_edges_are_judged_before_anything_is_added() {
        let all = (1_u64 << PHYS_BITS) - (HIGH_RAM_BASE - LOW_RAM_LIMIT);
        for (ram, epc, expected) in [
            (all, vec![], None),
            (all + PAGE_SIZE, vec![], Some(LayoutError::RamTooLarge(all + PAGE_SIZE))),
            (!4095, vec![], Some(LayoutError::RamTooLarge(!4095))),
            (MIN_RAM - PAGE_SIZE, vec![], Some(LayoutError::TooSmall(MIN_RAM - PAGE_SIZE))),
            (1 << 30, vec![PAGE_SIZE; 9], Some(LayoutError::TooManySections(9))),
            (
                1 << 30,
                vec![PAGE_SIZE, !4095],
                Some(LayoutError::EpcTooLarge { section: 1, size: !4095, base: 0x1_0020_0000 }),
            ),
        ] {
            assert_eq!(Layout::new(ram, &epc).err(), expected, "{ram:#x} {epc:x?}");
        }
    }

    #[test]
    fn the_memory_map_has_the_first_mib_ram_interrupt_chips_and_epc() {
        let layout = Layout::new(64 << 20, &[1 << 20, 2 << 20]).unwrap();

        let map = layout.memory_map();

        let entries: Vec<(u64, u64, u32)> = map
            .entries
            .iter()
            .map(|entry| (entry.range.start, entry.range.end, entry.kind as u32))
            .collect();
        assert_eq!(map.low_ram_end, 64 << 20);
        assert_eq!(
            entries,
            [
                (0, 0x9_fc00, 1),
                (0x9_fc00, 0xe_0000, 2),
                (0xe_0000, 0x10_0000, 3),
                (0x10_0000, 0x400_0000, 1),
                (0xfec0_0000, 0xfec0_1000, 2),
                (0xfee0_0000, 0xfee0_1000, 2),
                (0x1_0000_0000, 0x1_0010_0000, 2),
                (0x1_0020_0000, 0x1_0040_0000, 2),
            ]
        );
    }

    proptest! {
        #[test]
        fn the_memory_map_ascends_without_overlap_and_holds_all_ram_and_epc(
            ram in (MIN_RAM / PAGE_SIZE)..(1_u64 << 24),
            epc in prop::collection::vec(1_u64..(1 << 26), 0..=8),
        ) {
            let sizes: Vec<u64> = epc.iter().map(|pages| pages * PAGE_SIZE).collect();

            let layout = Layout::new(ram * PAGE_SIZE, &sizes).unwrap();

            let map = layout.memory_map().entries;
            for pair in map.windows(2) {
                prop_assert!(pair[0].range.end <= pair[1].range.start);
            }
            for section in layout.epc() {
                let entry = map.iter().find(|entry| entry.range == *section).unwrap();
                prop_assert_eq!(entry.kind, RangeKind::Reserved);
                prop_assert_eq!(section.start % EPC_ALIGN, 0);
            }
            let usable: u64 = map.iter().filter(|entry| entry.kind == RangeKind::Ram)
                .map(|entry| entry.range.end - entry.range.start).sum();
            prop_assert_eq!(usable, ram * PAGE_SIZE - (ACPI_END - EBDA_START));
        }
    }
}
