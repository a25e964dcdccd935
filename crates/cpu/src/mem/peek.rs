//! Guest memory as its owner's debugger sees it: nothing is checked, and no access leaves a trace.

use cloister_x86::Gpa;
use cloister_x86::addr::is_canonical;
use cloister_x86::paging::{PTE_ADDRESS, Pte};
use cloister_x86::regs::{Cr0, Cr4};

use super::translate::ram_bytes;
use crate::cpu::Cpu;
use crate::phys::PhysPage;

impl Cpu {
    /// Reads guest memory at linear address `la` through the guest's page tables, whatever rights they
    /// give and without accessed bits; the pages of the EPC read as ones, as the abort page does (SDM
    /// Vol. 3D, 35.3). Returns how many bytes were read before the first that is not memory.
    pub fn debug_read(&self, la: u64, data: &mut [u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            let at = la.wrapping_add(done as u64);
            let piece = piece(at, data.len() - done);
            let out = &mut data[done..done + piece];
            match self.debug_page(at) {
                PhysPage::Ram(ram) => ram_bytes(&ram, at & 0xfff).read(out),
                PhysPage::Epc(_) | PhysPage::EpcUnbacked => out.fill(0xff),
                PhysPage::Mmio | PhysPage::None => break,
            }
            done += piece;
        }
        done
    }

    /// Writes guest memory as [`Cpu::debug_read`] reads it. Returns whether it did: nothing is written
    /// unless all of it is RAM.
    #[must_use]
    pub fn debug_write(&self, la: u64, data: &[u8]) -> bool {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < data.len() {
            let at = la.wrapping_add(done as u64);
            let PhysPage::Ram(ram) = self.debug_page(at) else { return false };
            if !ram.writable {
                return false;
            }
            let piece = piece(at, data.len() - done);
            pieces.push((ram_bytes(&ram, at & 0xfff), &data[done..done + piece]));
            done += piece;
        }
        pieces.into_iter().for_each(|(bytes, data)| bytes.write(data));
        true
    }

    /// What is at the page of linear address `la`.
    fn debug_page(&self, la: u64) -> PhysPage {
        let nested = self.debug_walk(la).and_then(|guest| self.debug_nested(guest));
        nested.map_or(PhysPage::None, |gpa| self.package.memory.page(Gpa(gpa & !0xfff)))
    }

    /// The guest-physical address of `la`.
    fn debug_walk(&self, la: u64) -> Option<u64> {
        if !self.arch.cr0.contains(Cr0::PG) {
            return Some(la & 0xffff_ffff);
        }
        let nested = |guest| self.debug_nested(guest);
        let present = |entry, _, _| entry & Pte::PRESENT.bits() != 0;
        if self.long_mode() {
            let table = self.arch.cr3 & PTE_ADDRESS;
            return is_canonical(la).then(|| self.descend(la, table, 4, present, nested))?;
        }
        let la = la & 0xffff_ffff;
        if self.arch.cr4.contains(Cr4::PAE) {
            let pdpte = self.arch.pdptes[(la >> 30) as usize & 3];
            let table = pdpte & PTE_ADDRESS;
            return (pdpte & Pte::PRESENT.bits() != 0)
                .then(|| self.descend(la, table, 2, present, nested))?;
        }
        self.debug_walk_32(la)
    }

    /// [`Cpu::debug_walk`] with 32-bit paging (SDM Vol. 3A, 4.3).
    fn debug_walk_32(&self, la: u64) -> Option<u64> {
        let entry = |table: u64, shift: u32| {
            let at = table + (la >> shift & 0x3ff) * 4;
            let pair = self.physical_read(Gpa(self.debug_nested(at)? & !7));
            let entry = pair >> ((at & 4) * 8) & 0xffff_ffff;
            (entry & Pte::PRESENT.bits() != 0).then_some(entry)
        };
        let directory = entry(self.arch.cr3 & 0xffff_f000, 22)?;
        if directory & Pte::PAGE_SIZE.bits() != 0 && self.arch.cr4.contains(Cr4::PSE) {
            // PSE-36 (table 4-4).
            return Some(
                directory & 0xffc0_0000 | (directory & 0x001f_e000) << 19 | la & 0x3f_ffff,
            );
        }
        Some(entry(directory & 0xffff_f000, 12)? & 0xffff_f000 | la & 0xfff)
    }

    /// The physical address of a guest-physical one: as [`Cpu::nested`], without a trace.
    fn debug_nested(&self, guest: u64) -> Option<u64> {
        const RIGHTS: u64 = 7;
        match self.guest_controls() {
            Some(controls) if controls.has_ept() => {
                let present = |entry, _, _| entry & RIGHTS != 0;
                self.descend(guest, controls.eptp & PTE_ADDRESS, 4, present, Some)
            }
            _ => Some(guest),
        }
    }

    /// Descends tables of 512 entries to where `address` leads. `goes_on` says, of an entry, its level and
    /// whether it maps a page, whether it leads on; `nested` where a table's entry is.
    pub(super) fn descend(
        &self,
        address: u64,
        mut table: u64,
        mut level: u32,
        goes_on: impl Fn(u64, u32, bool) -> bool,
        nested: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        loop {
            let shift = 12 + 9 * (level - 1);
            let at = nested(table + (address >> shift & 0x1ff) * 8)?;
            let entry = self.physical_read(Gpa(at));
            let leaf = level == 1 || level <= 3 && entry & Pte::PAGE_SIZE.bits() != 0;
            if !goes_on(entry, level, leaf) {
                return None;
            }
            if leaf {
                let within = (1 << shift) - 1;
                return Some(entry & PTE_ADDRESS & !within | address & within);
            }
            table = entry & PTE_ADDRESS;
            level -= 1;
        }
    }
}

/// How many of `rest` bytes from `la` on are in its page.
fn piece(la: u64, rest: usize) -> usize {
    rest.min(4096 - (la & 0xfff) as usize)
}
