//! What a kernel is told of the machine's memory.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::narrow::in_memory;

/// What a range of the address map is, as e820 and PVH number it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum RangeKind {
    /// Usable RAM.
    Ram = 1,
    /// Reserved: the guest must not use it as RAM. EPC is reserved.
    Reserved = 2,
    /// ACPI tables, reclaimable.
    Acpi = 3,
}

/// One entry of the memory map that is handed to the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// Guest-physical addresses.
    pub range: Range<u64>,
    /// What is there.
    pub kind: RangeKind,
}

/// The memory of a machine, as far as loading a kernel has to do with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryMap {
    /// First address past the RAM that begins at 0. Kernel and initial RAM disk lie below it. At
    /// most 4 GiB: the boot protocols name them by 32-bit addresses.
    pub low_ram_end: u64,
    /// What the kernel is told, ascending. The boot protocols have room for
    /// [`MAX_MAP_ENTRIES`]; what is more is left out.
    pub entries: Vec<MapEntry>,
}

/// Entries of a memory map: the size of `e820_table` in `boot_params`.
pub const MAX_MAP_ENTRIES: usize = 128;

/// Writes zeros to `range`, a page at a time, so that a guest-given length allocates nothing.
///
/// # Errors
///
/// When part of the range is not RAM.
pub(crate) fn zero(ram: &GuestMemoryMmap, range: Range<u64>) -> Result<(), GuestMemoryError> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = range.start;
    while at < range.end {
        let len = in_memory(range.end - at).min(ZEROS.len());
        ram.write_slice(&ZEROS[..len], GuestAddress(at))?;
        at += len as u64;
    }
    Ok(())
}

/// A machine of `ram` bytes from 0 and its map: a first MiB with ACPI tables, then RAM, and `more`.
#[cfg(test)]
pub(crate) fn machine(ram: u64, more: &[MapEntry]) -> (GuestMemoryMmap, MemoryMap) {
    let entry = |range, kind| MapEntry { range, kind };
    let mut entries = vec![
        entry(0..0x9_fc00, RangeKind::Ram),
        entry(0x9_fc00..ACPI_START, RangeKind::Reserved),
        entry(ACPI_START..0x10_0000, RangeKind::Acpi),
        entry(0x10_0000..ram, RangeKind::Ram),
    ];
    entries.extend_from_slice(more);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), ram as usize)]).unwrap();
    (memory, MemoryMap { low_ram_end: ram, entries })
}

/// Where the ACPI tables of [`machine`] are.
#[cfg(test)]
pub(crate) const ACPI_START: u64 = 0xe_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroing_stops_at_its_end() {
        let (ram, _) = machine(4 << 20, &[]);
        ram.write_slice(&[0xff; 0x4000], GuestAddress(0x1000)).unwrap();

        zero(&ram, 0x1800..0x3801).unwrap();

        let mut bytes = [0; 0x4000];
        ram.read_slice(&mut bytes, GuestAddress(0x1000)).unwrap();
        assert!(bytes[..0x800].iter().all(|&byte| byte == 0xff));
        assert!(bytes[0x800..0x2801].iter().all(|&byte| byte == 0));
        assert!(bytes[0x2801..].iter().all(|&byte| byte == 0xff));
    }
}
