//! Extended page tables: from guest-physical to physical addresses in VMX non-root operation
//! (SDM Vol. 3C, 28.3 and 28.4).

use cloister_x86::Gpa;
use cloister_x86::vmx::{ExitReason, SecondaryControls};

use super::tlb::AccessKind;
use crate::cpu::Cpu;
use crate::vmx::{VmExit, apic_access};

/// Reads are allowed, or a read.
const READ: u64 = 1 << 0;
/// Writes are allowed, or a write.
const WRITE: u64 = 1 << 1;
/// Fetches are allowed, or a fetch.
const EXECUTE: u64 = 1 << 2;
const RIGHTS: u64 = READ | WRITE | EXECUTE;
/// The entry maps a page.
const LARGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
/// Address of a table or page.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// EPTP: accessed and dirty flags are kept.
const EPTP_ACCESSED_DIRTY: u64 = 1 << 6;

/// Bits of the exit qualification (SDM Vol. 3C, table 27-7).
mod qualification {
    /// Where the rights of the guest-physical address are.
    pub(super) const RIGHTS_SHIFT: u32 = 3;
    /// The guest-linear-address field is valid.
    pub(super) const LINEAR: u64 = 1 << 7;
    /// The access was to the translation of the linear address, not to a paging structure.
    pub(super) const TRANSLATION: u64 = 1 << 8;
}

/// Why a guest-physical address is accessed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// It is what a linear address translates to.
    Translation(u64, AccessKind),
    /// A paging-structure entry on the way from a linear address: to be written, or only read.
    Entry(u64, bool),
    /// The PDPTEs, which MOV to CR0, CR3 and CR4 load.
    Pdptes,
}

/// Entries of the page-modification log.
const LOG_ENTRIES: u16 = 512;

/// Entries of [`GuestPages`].
const PAGES: usize = 512;

/// A guest-physical mapping (SDM Vol. 3C, 28.4.2): a page of 4 KiB under an EPT pointer.
#[derive(Clone, Copy, Debug)]
struct GuestPage {
    /// Guest-physical address; [`NO_PAGE`] in an empty entry.
    guest: u64,
    eptp: u64,
    /// Physical address.
    page: u64,
    /// Accesses that need no walk: they are allowed, and their flags are set.
    rights: u64,
}

/// No page's address.
const NO_PAGE: u64 = u64::MAX;

/// What walks of extended page tables found: a direct-mapped cache.
#[derive(Debug)]
pub(crate) struct GuestPages(Box<[GuestPage]>);

impl Default for GuestPages {
    fn default() -> Self {
        let empty = GuestPage { guest: NO_PAGE, eptp: 0, page: 0, rights: 0 };
        Self(vec![empty; PAGES].into_boxed_slice())
    }
}

impl GuestPages {
    fn slot(&mut self, guest: u64) -> &mut GuestPage {
        &mut self.0[(guest >> 12) as usize % PAGES]
    }

    fn find(&mut self, eptp: u64, guest: u64, access: u64) -> Option<Gpa> {
        let entry = self.slot(guest);
        (entry.guest == guest & !0xfff && entry.eptp == eptp && entry.rights & access == access)
            .then_some(Gpa(entry.page | guest & 0xfff))
    }

    /// Drops what translates a guest-physical address, as an EPT violation does.
    fn drop_page(&mut self, guest: u64) {
        let entry = self.slot(guest);
        if entry.guest == guest & !0xfff {
            entry.guest = NO_PAGE;
        }
    }

    /// Drops what was found under `eptp`: INVEPT.
    pub(crate) fn drop_context(&mut self, eptp: u64) {
        for entry in self.0.iter_mut().filter(|entry| is_same_context(entry.eptp, eptp)) {
            entry.guest = NO_PAGE;
        }
    }

    /// Drops everything.
    pub(crate) fn drop_all(&mut self) {
        for entry in &mut self.0 {
            entry.guest = NO_PAGE;
        }
    }
}

/// Whether two EPT pointers name the same tables: EP4TA (SDM Vol. 3C, 28.4.1).
pub(crate) const fn is_same_context(a: u64, b: u64) -> bool {
    (a ^ b) & ADDRESS == 0
}

impl Cpu {
    /// The physical address that a guest-physical one is: the same outside VMX non-root operation and
    /// without EPT.
    ///
    /// # Errors
    ///
    /// An EPT violation or misconfiguration.
    #[inline]
    pub(crate) fn nested(&mut self, guest: u64, purpose: Purpose) -> Result<Gpa, VmExit> {
        match self.guest_controls() {
            Some(controls) if controls.has_ept() => {
                let eptp = controls.eptp;
                self.guest_physical(eptp, guest, purpose)
            }
            _ => Ok(Gpa(guest)),
        }
    }

    fn guest_physical(&mut self, eptp: u64, guest: u64, purpose: Purpose) -> Result<Gpa, VmExit> {
        let gpa = self.find_guest_physical(eptp, guest, purpose)?;
        let linear = matches!(purpose, Purpose::Translation(..));
        if !linear && self.is_apic_access(gpa) {
            return Err(apic_access::physical_exit(gpa));
        }
        Ok(gpa)
    }

    fn find_guest_physical(
        &mut self,
        eptp: u64,
        guest: u64,
        purpose: Purpose,
    ) -> Result<Gpa, VmExit> {
        let keeps_flags = eptp & EPTP_ACCESSED_DIRTY != 0;
        let access = match purpose {
            Purpose::Translation(_, AccessKind::Read) | Purpose::Pdptes => READ,
            Purpose::Translation(_, AccessKind::Write) => WRITE,
            Purpose::Translation(_, AccessKind::Execute) => EXECUTE,
            // With accessed and dirty flags, walks are writes (SDM Vol. 3C, 28.3.3.2).
            Purpose::Entry(_, write) if write || keeps_flags => READ | WRITE,
            Purpose::Entry(..) => READ,
        };
        if let Some(found) = self.run.guest_pages.find(eptp, guest, access) {
            return Ok(found);
        }
        let walked = self.walk_ept(eptp, guest, purpose, access);
        match walked {
            Ok((gpa, rights)) => {
                // A write that is still to set the dirty flag walks again.
                let rights =
                    if keeps_flags && access & WRITE == 0 { rights & !WRITE } else { rights };
                *self.run.guest_pages.slot(guest) =
                    GuestPage { guest: guest & !0xfff, eptp, page: gpa.0 & !0xfff, rights };
                Ok(gpa)
            }
            Err(exit) => {
                self.run.guest_pages.drop_page(guest);
                Err(exit)
            }
        }
    }

    /// Walks the extended page tables; the physical address comes with the rights to its page.
    fn walk_ept(
        &mut self,
        eptp: u64,
        guest: u64,
        purpose: Purpose,
        access: u64,
    ) -> Result<(Gpa, u64), VmExit> {
        let keeps_flags = eptp & EPTP_ACCESSED_DIRTY != 0;
        let (mut table, mut level, mut rights) = (eptp & ADDRESS, 4, RIGHTS);
        loop {
            let shift = 12 + 9 * (level - 1);
            let at = Gpa(table + (guest >> shift & 0x1ff) * 8);
            let entry = self.physical_read(at);
            rights &= entry;
            if entry & RIGHTS == 0 {
                return Err(violation(guest, purpose, access, 0));
            }
            let leaf = level == 1 || (level <= 3 && entry & LARGE != 0);
            if self.is_misconfigured(entry, level, leaf) {
                return Err(misconfiguration(guest));
            }
            if leaf && rights & access != access {
                return Err(violation(guest, purpose, access, rights));
            }
            let dirty = if leaf && access & WRITE != 0 { DIRTY } else { 0 };
            let used = entry | if keeps_flags { ACCESSED | dirty } else { 0 };
            let logs = keeps_flags && dirty & !entry != 0 && self.logs_modifications();
            if logs {
                self.check_modification_log()?;
            }
            if used != entry && !self.physical_update(at, entry, used) {
                // Someone changed the entry since it was read: read it again.
                (table, level, rights) = (eptp & ADDRESS, 4, RIGHTS);
                continue;
            }
            if logs {
                self.log_modification(guest);
            }
            if leaf {
                let within = (1 << shift) - 1;
                return Ok((Gpa(entry & ADDRESS & !within | guest & within), rights));
            }
            table = entry & ADDRESS;
            level -= 1;
        }
    }

    /// Guest-physical pages whose dirty flag is set are logged (SDM Vol. 3C, 28.3.6).
    fn logs_modifications(&self) -> bool {
        self.guest_controls()
            .is_some_and(|c| c.secondary.contains(SecondaryControls::PAGE_MODIFICATION_LOG))
    }

    /// # Errors
    ///
    /// The exit of a full page-modification log.
    fn check_modification_log(&self) -> Result<(), VmExit> {
        match &self.arch.vmx.guest {
            Some(guest) if guest.pml_index >= LOG_ENTRIES => {
                Err(VmExit::new(ExitReason::PageModificationLogFull))
            }
            _ => Ok(()),
        }
    }

    /// Logs a guest-physical page.
    fn log_modification(&mut self, address: u64) {
        let Some(guest) = &mut self.arch.vmx.guest else { return };
        let (log, index) = (guest.controls.pml_address, guest.pml_index);
        guest.pml_index = index.wrapping_sub(1);
        self.physical_page(log).write(8 * usize::from(index), address & !0xfff);
    }

    /// SDM Vol. 3C, 28.3.3.1.
    fn is_misconfigured(&self, entry: u64, level: u32, leaf: bool) -> bool {
        let beyond = ADDRESS & !((1 << self.ctl.features.physical_bits) - 1);
        let reserved = match (level, leaf) {
            (4, _) => 0xf8,
            (_, false) => 0x78,
            (3, true) => 0x3fff_f000,
            (2, true) => 0x001f_f000,
            _ => 0,
        };
        let memory_type = entry >> 3 & 7;
        entry & (READ | WRITE) == WRITE
            || entry & (beyond | reserved) != 0
            || (leaf && matches!(memory_type, 2 | 3 | 7))
    }
}

fn violation(guest: u64, purpose: Purpose, access: u64, rights: u64) -> VmExit {
    let (linear, how) = match purpose {
        Purpose::Translation(la, _) => (la, qualification::LINEAR | qualification::TRANSLATION),
        Purpose::Entry(la, _) => (la, qualification::LINEAR),
        Purpose::Pdptes => (0, 0),
    };
    VmExit {
        qualification: access | (rights & RIGHTS) << qualification::RIGHTS_SHIFT | how,
        linear,
        physical: guest,
        ..VmExit::new(ExitReason::EptViolation)
    }
}

fn misconfiguration(guest: u64) -> VmExit {
    VmExit { physical: guest, ..VmExit::new(ExitReason::EptMisconfiguration) }
}
