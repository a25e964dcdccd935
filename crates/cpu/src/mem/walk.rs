//! The page walk (SDM Vol. 3A, chapter 4).

use cloister_x86::paging::{PTE_ADDRESS, Pte};
use cloister_x86::regs::{Cr0, Cr4, Efer};
use cloister_x86::{Gpa, PageFaultCode};

use super::tlb::{AccessKind, MmuMode};
use crate::state::Cpu;

/// What a linear address maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Physical address of the 4 KiB page.
    pub gpa: Gpa,
    /// Size in bytes of the page that maps it.
    pub page_size: u64,
    /// Whether the translation is global.
    pub global: bool,
}

impl Cpu {
    /// Translates the page of `la` through the guest's paging structures, checks the access and
    /// sets accessed and dirty bits.
    ///
    /// # Errors
    ///
    /// The page-fault error code (SDM Vol. 3A, 4.7).
    pub fn walk(
        &mut self,
        la: u64,
        kind: AccessKind,
        mode: MmuMode,
    ) -> Result<Mapping, PageFaultCode> {
        if !self.cr0.contains(Cr0::PG) {
            return Ok(Mapping { gpa: Gpa(la & 0xffff_f000), page_size: 4096, global: false });
        }
        self.walk_4_level(la, kind, mode)
    }

    fn walk_4_level(
        &mut self,
        la: u64,
        kind: AccessKind,
        mode: MmuMode,
    ) -> Result<Mapping, PageFaultCode> {
        let mut code = PageFaultCode::empty();
        let user = matches!(mode, MmuMode::User | MmuMode::Enclave);
        code.set(PageFaultCode::WRITE, kind == AccessKind::Write);
        code.set(PageFaultCode::USER, user);
        let no_execute = self.efer.contains(Efer::NXE);
        code.set(
            PageFaultCode::FETCH,
            kind == AccessKind::Execute && (no_execute || self.cr4.contains(Cr4::SMEP)),
        );

        // Rights are the AND of all levels, so start with all of them.
        let mut rights = Pte::WRITE | Pte::USER;
        let mut forbid_execute = false;
        let mut table = self.cr3 & PTE_ADDRESS;
        let mut level = 4u32;
        loop {
            let shift = 12 + 9 * (level - 1);
            let at = Gpa(table + (la >> shift & 0x1ff) * 8);
            let mut entry = Pte::from_bits_retain(self.physical_read(at));
            if !entry.contains(Pte::PRESENT) {
                return Err(code);
            }
            let leaf = level == 1 || (level <= 3 && entry.contains(Pte::PAGE_SIZE));
            if entry.bits() & self.reserved_bits(level, leaf) != 0 {
                return Err(code | PageFaultCode::PRESENT | PageFaultCode::RESERVED);
            }
            rights &= entry;
            forbid_execute |= entry.contains(Pte::NO_EXECUTE);
            if !leaf {
                if !entry.contains(Pte::ACCESSED)
                    && !self.physical_update(at, entry.bits(), (entry | Pte::ACCESSED).bits())
                {
                    // Someone changed the entry since it was read: read it again.
                    continue;
                }
                table = entry.bits() & PTE_ADDRESS;
                level -= 1;
                continue;
            }

            if !self.allows(rights, forbid_execute && no_execute, kind, mode) {
                return Err(code | PageFaultCode::PRESENT);
            }
            let mut wanted = entry | Pte::ACCESSED;
            if kind == AccessKind::Write {
                wanted |= Pte::DIRTY;
            }
            if wanted != entry && !self.physical_update(at, entry.bits(), wanted.bits()) {
                // As above; rights of the upper levels stay as they were read.
                continue;
            }
            entry = wanted;
            let page_size = 1u64 << shift;
            let offset = la & (page_size - 1) & !0xfff;
            return Ok(Mapping {
                gpa: Gpa((entry.bits() & PTE_ADDRESS & !(page_size - 1)) | offset),
                page_size,
                global: entry.contains(Pte::GLOBAL) && self.cr4.contains(Cr4::PGE),
            });
        }
    }

    /// Access rights (SDM Vol. 3A, 4.6.1).
    fn allows(&self, rights: Pte, no_execute: bool, kind: AccessKind, mode: MmuMode) -> bool {
        let user_page = rights.contains(Pte::USER);
        let user = matches!(mode, MmuMode::User | MmuMode::Enclave);
        if user && !user_page {
            return false;
        }
        match kind {
            AccessKind::Execute => {
                !no_execute && (user || !user_page || !self.cr4.contains(Cr4::SMEP))
            }
            AccessKind::Read | AccessKind::Write => {
                let smap = mode == MmuMode::Supervisor && user_page && self.cr4.contains(Cr4::SMAP);
                let writable = kind == AccessKind::Read
                    || rights.contains(Pte::WRITE)
                    || (!user && !self.cr0.contains(Cr0::WP));
                !smap && writable
            }
        }
    }

    /// Bits that must be clear in a present entry (SDM Vol. 3A, 4.5.4, tables 4-14 to 4-19).
    fn reserved_bits(&self, level: u32, leaf: bool) -> u64 {
        let mut reserved = PTE_ADDRESS & !((1 << self.features.physical_bits) - 1);
        if !self.efer.contains(Efer::NXE) {
            reserved |= Pte::NO_EXECUTE.bits();
        }
        match (level, leaf) {
            (4, _) => reserved |= Pte::PAGE_SIZE.bits(),
            // Bit 12 is PAT in the entry of a large page.
            (3, true) => reserved |= 0x3fff_e000,
            (2, true) => reserved |= 0x001f_e000,
            _ => {}
        }
        reserved
    }
}
