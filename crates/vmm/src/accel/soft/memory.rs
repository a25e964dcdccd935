//! Guest-physical memory as the software processor sees it.

#![expect(unsafe_code, reason = "hands the processor pointers into guest RAM")]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use cloister_cpu::{CodeTrack, PhysMap, PhysPage, RamPage};
use cloister_devices::DmaObserver;
use cloister_virt::{Backing, SgxVm};
use cloister_x86::{Gpa, PAGE_SIZE};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use crate::layout::{HIGH_RAM_BASE, LOW_RAM_LIMIT};

/// Bytes of a page, as an offset from a pointer.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_SIZE);

/// A contiguous range of RAM with the code tracking of its pages.
struct Bank {
    range: Range<u64>,
    host: NonNull<u8>,
    tracks: Box<[CodeTrack]>,
}

/// RAM, the 32-bit hole and virtual EPC.
pub(super) struct SoftMemory {
    banks: Vec<Bank>,
    sgx: Option<Arc<SgxVm>>,
    /// Keeps the mappings that the banks point into.
    _ram: GuestMemoryMmap,
}

// SAFETY: the pointers lead into mappings that live as long as the value and that any thread may
// access: guest RAM is shared memory whose accesses are atomic or racy by the guest's own choice.
unsafe impl Send for SoftMemory {}
// SAFETY: the same holds for any number of threads at once.
unsafe impl Sync for SoftMemory {}

impl SoftMemory {
    /// The memory of a machine with this RAM, whose regions begin and end at page boundaries, and
    /// the virtual EPC of `sgx`. `None` if the host has no memory to track code in all of it.
    pub(super) fn new(ram: &GuestMemoryMmap, sgx: Option<Arc<SgxVm>>) -> Option<Self> {
        let banks = ram
            .iter()
            .map(|region| {
                let start = region.start_addr().0;
                let host = region.get_host_address(MemoryRegionAddress(0)).ok()?;
                let pages = (region.len() / PAGE_SIZE) as usize;
                Some(Bank {
                    range: start..start + region.len(),
                    host: NonNull::new(host)?,
                    // An allocation that fails gives an empty array.
                    tracks: Some(CodeTrack::array(pages)).filter(|tracks| tracks.len() == pages)?,
                })
            })
            .collect::<Option<_>>()?;
        Some(Self { banks, sgx, _ram: ram.clone() })
    }

    fn bank(&self, gpa: u64) -> Option<(&Bank, usize)> {
        let bank = self.banks.iter().find(|bank| bank.range.contains(&gpa))?;
        Some((bank, ((gpa - bank.range.start) / PAGE_SIZE) as usize))
    }
}

// SAFETY: `host` points to a whole page inside a mapping of this value, and mappings are page
// aligned as their regions are; `track` points into a boxed slice of this value.
unsafe impl PhysMap for SoftMemory {
    fn page(&self, gpa: Gpa) -> PhysPage {
        if let Some((bank, page)) = self.bank(gpa.0) {
            // SAFETY: `bank` found that the page is inside its mapping.
            let host = unsafe { bank.host.add(page * PAGE) };
            let track = NonNull::from(&bank.tracks[page]);
            return PhysPage::Ram(RamPage { host, track, writable: true });
        }
        if (LOW_RAM_LIMIT..HIGH_RAM_BASE).contains(&gpa.0) {
            return PhysPage::Mmio;
        }
        match self.sgx.as_ref().and_then(|sgx| sgx.backing(gpa.page())) {
            Some(Backing::Page(index)) => PhysPage::Epc(index),
            Some(Backing::None) => PhysPage::EpcUnbacked,
            None => PhysPage::None,
        }
    }
}

impl DmaObserver for SoftMemory {
    fn written(&self, gpa: u64, len: u64) {
        // What was stored is to be seen before the lines are looked at: see `CodeTrack`.
        fence(Ordering::SeqCst);
        let end = gpa.saturating_add(len);
        let mut at = gpa;
        while at < end {
            let offset = usize::from((at & 0xfff) as u16);
            let part =
                usize::try_from(end - at).map_or(PAGE - offset, |rest| rest.min(PAGE - offset));
            if let Some((bank, page)) = self.bank(at) {
                bank.tracks[page].stored(offset, part);
            }
            at += part as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::memory::map_ram;
    use vm_memory::{Bytes, GuestAddress};

    fn memory(ram: u64) -> (GuestMemoryMmap, SoftMemory) {
        let ram = map_ram(&Layout::new(ram, &[]).unwrap()).unwrap();
        let memory = SoftMemory::new(&ram, None).unwrap();
        (ram, memory)
    }

    fn ram_page(memory: &SoftMemory, gpa: u64) -> RamPage {
        let PhysPage::Ram(page) = memory.page(Gpa(gpa)) else { panic!("no RAM at {gpa:#x}") };
        page
    }

    #[test]
    fn a_ram_page_is_the_page_that_the_address_names() {
        let (ram, memory) = memory(4 << 30);
        for gpa in [0, 0x1000, 0xbfff_f000, 0x1_0000_0000, 0x1_3fff_f000] {
            ram.write_obj(gpa, GuestAddress(gpa + 8)).unwrap();
        }

        for gpa in [0_u64, 0x1000, 0xbfff_f000, 0x1_0000_0000, 0x1_3fff_f000] {
            let page = ram_page(&memory, gpa + 0x123);
            // SAFETY: the page is 4096 bytes of mapped RAM.
            let value = unsafe { page.host.add(8).cast::<u64>().read() };
            assert_eq!(value, gpa);
        }
    }

    #[test]
    fn the_32_bit_hole_is_devices_and_the_rest_is_nothing() {
        let (_ram, memory) = memory(64 << 20);

        for (gpa, expected) in [
            (0x400_0000, "None"),
            (0xbfff_ffff, "None"),
            (0xc000_0000, "Mmio"),
            (0xfee0_0000, "Mmio"),
            (0x1_0000_0000, "None"),
            (u64::MAX, "None"),
        ] {
            assert_eq!(format!("{:?}", memory.page(Gpa(gpa))), expected, "{gpa:#x}");
        }
    }

    #[test]
    fn a_device_write_makes_the_code_of_each_page_it_touches_stale() {
        let (_ram, memory) = memory(4 << 20);
        // SAFETY: trackers live as long as the memory.
        let track = |gpa| unsafe { ram_page(&memory, gpa).track.as_ref() };
        for gpa in [0x1000, 0x2000, 0x3000, 0x4000] {
            track(gpa).mark(0, 4096, false);
        }

        memory.written(0x1fff, 0x1002);
        memory.written(u64::MAX - 1, 10);

        let stale = [0x1000, 0x2000, 0x3000, 0x4000].map(|gpa| track(gpa).generation() != 0);
        assert_eq!(stale, [true, true, true, false]);
    }
}
