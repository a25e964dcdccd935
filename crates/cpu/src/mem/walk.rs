//! The page walk (SDM Vol. 3A, chapter 4).

use cloister_x86::paging::{PTE_ADDRESS, Pte};
use cloister_x86::regs::{Cr0, Cr4, Efer};
use cloister_x86::{Gpa, PageFaultCode};

use super::ept::Purpose;
use super::table_cache::PageTable;
use super::tlb::{AccessKind, MmuMode};
use crate::cpu::Cpu;
use crate::vmx::VmExit;

/// What a linear address maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Physical address of the 4 KiB page, after extended page tables where there are any.
    pub(crate) gpa: Gpa,
    /// Size in bytes of the page that maps it.
    pub(crate) page_size: u64,
    /// Whether the translation is global.
    pub(crate) global: bool,
}

/// Why a walk yields no mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WalkFault {
    /// A page fault with this error code (SDM Vol. 3A, 4.7).
    Page(PageFaultCode),
    /// Extended page tables do not let it go on.
    Exit(VmExit),
}

impl From<PageFaultCode> for WalkFault {
    fn from(code: PageFaultCode) -> Self {
        Self::Page(code)
    }
}

impl From<VmExit> for WalkFault {
    fn from(exit: VmExit) -> Self {
        Self::Exit(exit)
    }
}

/// Where a walk is: at a table, with what the levels above say.
#[derive(Clone, Copy)]
struct Table {
    address: u64,
    level: u32,
    /// The AND of all levels.
    rights: Pte,
    /// The OR of all levels.
    no_execute: bool,
}

impl Table {
    fn root(address: u64, level: u32) -> Self {
        Self { address, level, rights: Pte::WRITE | Pte::USER, no_execute: false }
    }
}

/// A leaf entry after an access of `kind`.
fn used(entry: Pte, kind: AccessKind) -> Pte {
    let dirty = if kind == AccessKind::Write { Pte::DIRTY } else { Pte::empty() };
    entry | Pte::ACCESSED | dirty
}

impl Cpu {
    /// Translates the page of `la` through the guest's paging structures, checks the access and
    /// sets accessed and dirty bits.
    ///
    /// # Errors
    ///
    /// A page fault, or an exit to the guest hypervisor.
    pub(crate) fn walk(
        &mut self,
        la: u64,
        kind: AccessKind,
        mode: MmuMode,
    ) -> Result<Mapping, WalkFault> {
        let mapping = self.walk_guest(la, kind, mode)?;
        // Pages beyond 4 KiB may be made of others.
        let gpa = self.nested(mapping.gpa.0 | la & 0xfff, Purpose::Translation(la, kind))?;
        Ok(Mapping { gpa: Gpa(gpa.0 & !0xfff), ..mapping })
    }

    /// The guest-physical page that the guest's paging structures translate `la` to, for an EPC operand of
    /// a leaf, which has been translated before; 0 if they have changed since.
    pub(crate) fn guest_physical_page(&mut self, la: u64) -> u64 {
        let mapping = self.walk_guest(la, AccessKind::Write, self.run.mmu_mode);
        mapping.map_or(0, |mapping| mapping.gpa.0 & !0xfff)
    }

    /// The part of [`Cpu::walk`] that the guest's own paging structures decide.
    fn walk_guest(
        &mut self,
        la: u64,
        kind: AccessKind,
        mode: MmuMode,
    ) -> Result<Mapping, WalkFault> {
        if !self.arch.cr0.contains(Cr0::PG) {
            return Ok(Mapping { gpa: Gpa(la & 0xffff_f000), page_size: 4096, global: false });
        }
        if self.long_mode() {
            return self.walk_4_levels(la, kind, mode);
        }
        let la = la & 0xffff_ffff;
        if !self.arch.cr4.contains(Cr4::PAE) {
            return self.walk_32(la, kind, mode);
        }
        // The PDPTE registers were checked when they were loaded; they carry no rights.
        let pdpte = Pte::from_bits_retain(self.arch.pdptes[(la >> 30) as usize & 3]);
        if !pdpte.contains(Pte::PRESENT) {
            return Err(self.fault_code(kind, mode).into());
        }
        let table = pdpte.bits() & PTE_ADDRESS;
        self.walk_entries(la, Table::root(table, 2), kind, mode)
    }

    /// 4-level paging: from the page table on, if that is known, else from the root.
    fn walk_4_levels(
        &mut self,
        la: u64,
        kind: AccessKind,
        mode: MmuMode,
    ) -> Result<Mapping, WalkFault> {
        if let Some(PageTable { address, rights, no_execute }) = self.run.tlb.find_table(la) {
            let table = Table { address, level: 1, rights, no_execute };
            match self.walk_entries(la, table, kind, mode) {
                Err(WalkFault::Page(_)) => self.run.tlb.drop_table(la),
                outcome => return outcome,
            }
        }
        let root = self.arch.cr3 & PTE_ADDRESS;
        self.walk_entries(la, Table::root(root, 4), kind, mode)
    }

    /// The bits of an error code that tell of the access (SDM Vol. 3A, 4.7).
    fn fault_code(&self, kind: AccessKind, mode: MmuMode) -> PageFaultCode {
        let mut code = PageFaultCode::empty();
        let user = matches!(mode, MmuMode::User | MmuMode::Enclave);
        code.set(PageFaultCode::WRITE, kind == AccessKind::Write);
        code.set(PageFaultCode::USER, user);
        let no_execute = self.arch.cr4.contains(Cr4::PAE) && self.arch.efer.contains(Efer::NXE);
        code.set(
            PageFaultCode::FETCH,
            kind == AccessKind::Execute && (no_execute || self.arch.cr4.contains(Cr4::SMEP)),
        );
        code
    }

    /// 4-level and PAE paging: entries of 8 bytes (SDM Vol. 3A, 4.4 and 4.5).
    fn walk_entries(
        &mut self,
        la: u64,
        table: Table,
        kind: AccessKind,
        mode: MmuMode,
    ) -> Result<Mapping, WalkFault> {
        let code = self.fault_code(kind, mode);
        let long_mode = self.long_mode();
        let Table { address: mut table, mut level, mut rights, mut no_execute } = table;
        loop {
            let shift = 12 + 9 * (level - 1);
            let guest = table + (la >> shift & 0x1ff) * 8;
            let at = self.nested(guest, Purpose::Entry(la, false))?;
            let entry = Pte::from_bits_retain(self.physical_read(at));
            if !entry.contains(Pte::PRESENT) {
                return Err(code.into());
            }
            let leaf = level == 1 || (level <= 3 && entry.contains(Pte::PAGE_SIZE));
            if entry.bits() & self.reserved_bits(level, leaf) != 0 {
                return Err((code | PageFaultCode::PRESENT | PageFaultCode::RESERVED).into());
            }
            rights &= entry;
            no_execute |= entry.contains(Pte::NO_EXECUTE);
            if !leaf {
                let wanted = entry | Pte::ACCESSED;
                if wanted != entry && !self.update_entry(la, guest, entry.bits(), wanted.bits())? {
                    // Someone changed the entry since it was read: read it again.
                    continue;
                }
                table = entry.bits() & PTE_ADDRESS;
                level -= 1;
                if level == 1 && long_mode {
                    self.run.tlb.fill_table(la, PageTable { address: table, rights, no_execute });
                }
                continue;
            }

            let no_execute = no_execute && self.arch.efer.contains(Efer::NXE);
            if !self.allows(rights, no_execute, kind, mode) {
                return Err((code | PageFaultCode::PRESENT).into());
            }
            let wanted = used(entry, kind);
            if wanted != entry && !self.update_entry(la, guest, entry.bits(), wanted.bits())? {
                // As above; rights of the upper levels stay as they were read.
                continue;
            }
            let page_size = 1u64 << shift;
            let offset = la & (page_size - 1) & !0xfff;
            return Ok(Mapping {
                gpa: Gpa((entry.bits() & PTE_ADDRESS & !(page_size - 1)) | offset),
                page_size,
                global: entry.contains(Pte::GLOBAL) && self.arch.cr4.contains(Cr4::PGE),
            });
        }
    }

    /// 32-bit paging: entries of 4 bytes (SDM Vol. 3A, 4.3).
    fn walk_32(&mut self, la: u64, kind: AccessKind, mode: MmuMode) -> Result<Mapping, WalkFault> {
        let code = self.fault_code(kind, mode);
        let mut rights = Pte::WRITE | Pte::USER;
        let mut table = self.arch.cr3 & 0xffff_f000;
        let mut level = 2;
        loop {
            let shift = 12 + 10 * (level - 1);
            let guest = table + (la >> shift & 0x3ff) * 4;
            let at = self.nested(guest, Purpose::Entry(la, false))?;
            // Entries come in pairs, as memory is read and updated by 8 bytes.
            let pair = self.physical_read(at);
            let half = (guest & 4) * 8;
            let entry = Pte::from_bits_retain(pair >> half & 0xffff_ffff);
            if !entry.contains(Pte::PRESENT) {
                return Err(code.into());
            }
            let large =
                level == 2 && entry.contains(Pte::PAGE_SIZE) && self.arch.cr4.contains(Cr4::PSE);
            if large && entry.bits() & self.reserved_bits_4m() != 0 {
                return Err((code | PageFaultCode::PRESENT | PageFaultCode::RESERVED).into());
            }
            rights &= entry;
            let leaf = large || level == 1;
            if leaf && !self.allows(rights, false, kind, mode) {
                return Err((code | PageFaultCode::PRESENT).into());
            }
            let wanted = if leaf { used(entry, kind) } else { entry | Pte::ACCESSED };
            let new_pair = pair | wanted.bits() << half;
            if new_pair != pair && !self.update_entry(la, guest & !7, pair, new_pair)? {
                // Someone changed the entry, or its neighbour: read it again.
                continue;
            }
            if !leaf {
                table = entry.bits() & 0xffff_f000;
                level = 1;
                continue;
            }
            let page_size = 1u64 << shift;
            let frame = if large {
                // PSE-36: bits 20:13 are address bits 39:32 (SDM Vol. 3A, table 4-4).
                (entry.bits() & 0xffc0_0000) | (entry.bits() & 0x001f_e000) << 19
            } else {
                entry.bits() & 0xffff_f000
            };
            return Ok(Mapping {
                gpa: Gpa(frame | la & (page_size - 1) & !0xfff),
                page_size,
                global: entry.contains(Pte::GLOBAL) && self.arch.cr4.contains(Cr4::PGE),
            });
        }
    }

    /// Sets accessed and dirty bits in the 8 bytes at a guest-physical address, if they still are
    /// `old`; `false` if they are not.
    fn update_entry(&mut self, la: u64, guest: u64, old: u64, new: u64) -> Result<bool, VmExit> {
        let at = self.nested(guest, Purpose::Entry(la, true))?;
        Ok(self.physical_update(at, old, new))
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
                !no_execute && (user || !user_page || !self.arch.cr4.contains(Cr4::SMEP))
            }
            AccessKind::Read | AccessKind::Write => {
                let smap =
                    mode == MmuMode::Supervisor && user_page && self.arch.cr4.contains(Cr4::SMAP);
                let writable = kind == AccessKind::Read
                    || rights.contains(Pte::WRITE)
                    || (!user && !self.arch.cr0.contains(Cr0::WP));
                !smap && writable
            }
        }
    }

    /// Bits that must be clear in a present entry (SDM Vol. 3A, 4.5.4, tables 4-14 to 4-19).
    pub(super) fn reserved_bits(&self, level: u32, leaf: bool) -> u64 {
        let mut reserved = PTE_ADDRESS & !((1 << self.ctl.features.physical_bits) - 1);
        if !self.arch.efer.contains(Efer::NXE) {
            reserved |= Pte::NO_EXECUTE.bits();
        }
        match (level, leaf) {
            (4, _) => reserved |= Pte::PAGE_SIZE.bits(),
            // Bit 12 is PAT in the entry of a large page.
            (3, true) => reserved |= 0x3fff_e000,
            (2, true) => reserved |= 0x001f_e000,
            _ => {}
        }
        if !self.long_mode() {
            // PAE paging does not ignore what 4-level paging leaves to software (table 4-9).
            reserved |= 0x7ff0_0000_0000_0000;
        }
        reserved
    }

    /// Bits that must be clear in a page-directory entry that maps 4 MiB (SDM Vol. 3A, table 4-4):
    /// bit 21, and address bits beyond MAXPHYADDR or 40 bits.
    fn reserved_bits_4m(&self) -> u64 {
        let width = self.ctl.features.physical_bits.clamp(32, 40) - 32;
        let address = ((1u64 << width) - 1) << 13;
        0x003f_e000 & !address
    }
}
