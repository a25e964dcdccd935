//! From a linear address to the memory or device that it names.
#![expect(unsafe_code, reason = "takes the physical map at its word")]

use cloister_x86::addr::is_canonical;
use cloister_x86::{Exception, Gpa, PageFaultCode};

use super::PageBytes;
use super::tlb::{AccessKind, MmuMode};
use super::walk::WalkFault;
use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::phys::{PhysPage, RamPage, Tracker};

/// What an access reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Memory, from the byte at the linear address on.
    Memory {
        /// Where it is in this process.
        bytes: PageBytes,
        /// Identity of its page: see [`super::tlb::Entry::phys`].
        phys: u64,
    },
    /// Device registers at this physical address.
    Device(Gpa),
    /// The APIC-access page of a guest, at this offset: see [`crate::vmx::apic_access`].
    ApicAccess(usize),
    /// Reads give all ones, writes are dropped: nothing there, a read-only page (writes), or EPC
    /// reached from outside an enclave (the abort page, SDM Vol. 3D, 35.3).
    Void,
}

/// Bit of [`super::tlb::Entry::phys`] that tells EPC pages.
pub(crate) const PHYS_EPC: u64 = 1 << 55;

impl Cpu {
    /// Translates `la` for an access that stays in its page, and enters the translation in the TLB
    /// where later accesses may use it unasked.
    ///
    /// # Errors
    ///
    /// #PF; #GP(0) for a non-canonical address, which [`crate::engine`] turns into #SS(0) for
    /// stack references.
    pub(crate) fn translate(&mut self, la: u64, kind: AccessKind, mode: MmuMode) -> Exec<Target> {
        if let Some((bytes, phys)) = self.run.tlb.find(kind, mode, la) {
            return Ok(Target::Memory { bytes, phys });
        }
        self.check_canonical(la)?;
        let mapping = match self.walk(la, kind, mode) {
            Ok(mapping) => mapping,
            Err(WalkFault::Page(code)) => return Err(self.page_fault(la, code)),
            Err(WalkFault::Exit(exit)) => return Err(self.vm_exit(exit)),
        };
        let apic_access = self.is_apic_access(mapping.gpa);
        if kind != AccessKind::Execute && !apic_access && self.apic.claims(mapping.gpa) {
            return Ok(Target::Device(Gpa(mapping.gpa.0 | (la & 0xfff))));
        }
        // Whatever is there: enclaves have no page of theirs in it (SDM Vol. 3D, 39.5.3).
        let page = if apic_access { PhysPage::None } else { self.package.memory.page(mapping.gpa) };
        let page = if mode == MmuMode::Enclave {
            match self.enclave_access(la, kind, page)? {
                Some(page) => page,
                None => return Ok(Target::Void),
            }
        } else {
            page
        };
        if apic_access {
            let offset = (la & 0xfff) as usize;
            return match kind {
                AccessKind::Execute => Err(self.apic_access_exit(offset, kind)),
                AccessKind::Read | AccessKind::Write => Ok(Target::ApicAccess(offset)),
            };
        }
        match page {
            PhysPage::Ram(ram) => {
                if kind == AccessKind::Write && !ram.writable {
                    return Ok(Target::Void);
                }
                let bytes = ram_bytes(&ram, la & 0xfff);
                let (phys, global) = (mapping.gpa.0, mapping.global);
                self.run.tlb.fill(kind, mode, la, bytes, phys, global, mapping.page_size);
                Ok(Target::Memory { bytes, phys })
            }
            // Outside an enclave, or at an address that `enclave_access` did not let through.
            PhysPage::Epc(index) if mode == MmuMode::Enclave => {
                let Some(page) = self.epc_memory(index) else {
                    return Ok(Target::Void);
                };
                let bytes = page.at(la & 0xfff);
                let phys = PHYS_EPC | u64::from(index.0) << 12;
                self.run.tlb.fill(kind, mode, la, bytes, phys, false, 4096);
                Ok(Target::Memory { bytes, phys })
            }
            PhysPage::Mmio => Ok(Target::Device(Gpa(mapping.gpa.0 | (la & 0xfff)))),
            PhysPage::Epc(_) | PhysPage::EpcUnbacked | PhysPage::None => Ok(Target::Void),
        }
    }

    /// Checks that `la` is canonical. An access whose later bytes are not faults before anything
    /// is asked of the page tables.
    ///
    /// # Errors
    ///
    /// #GP(0).
    #[inline]
    pub(crate) fn check_canonical(&mut self, la: u64) -> Exec {
        if self.long_mode() && !is_canonical(la) {
            self.run.non_canonical_fault = true;
            return Err(self.gp(0));
        }
        Ok(())
    }

    /// #PF at `la`: CR2 is written when the fault is delivered.
    pub(crate) fn page_fault(&mut self, la: u64, code: PageFaultCode) -> crate::Stop {
        self.raise(Exception::pf(la, code))
    }

    /// Reads 8 aligned bytes of physical memory, as the page walk does; all ones where no RAM is.
    pub(crate) fn physical_read(&self, gpa: Gpa) -> u64 {
        self.physical_page(gpa.0).read((gpa.0 & 0xff8) as usize)
    }

    /// Replaces 8 aligned bytes of physical memory if they still are `old`, as the page walk does
    /// to set accessed and dirty bits. `false` if they are not.
    pub(crate) fn physical_update(&self, gpa: Gpa, old: u64, new: u64) -> bool {
        match self.package.memory.page(gpa) {
            PhysPage::Ram(ram) if ram.writable => {
                let bytes = ram_bytes(&ram, gpa.0 & 0xff8);
                let was = bytes.update::<u64>(|now| if now == old { new } else { now });
                was == Some(old)
            }
            _ => true,
        }
    }
}

/// The memory of a page that this processor's physical map gave, from `offset` on.
#[inline(always)]
pub(super) fn ram_bytes(ram: &RamPage, offset: u64) -> PageBytes {
    // SAFETY: who implements `PhysMap` promises that both are valid as long as the map lives, which
    // the package keeps, and this processor the package.
    let page = unsafe { PageBytes::new(ram.host, Tracker::new(ram.track)) };
    page.at(offset)
}
