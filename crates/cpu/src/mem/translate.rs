//! From a linear address to the memory or device behind it.
#![expect(
    unsafe_code,
    reason = "reads and writes guest memory through the physical map's pointers"
)]

use std::ptr::NonNull;

use cloister_x86::addr::is_canonical;
use cloister_x86::{Exception, Gpa, PageFaultCode};

use super::host;
use super::tlb::{AccessKind, MmuMode};
use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::phys::{CodeTrack, PhysPage};

/// What an access reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Memory of this process.
    Memory {
        /// The byte at the linear address.
        host: NonNull<u8>,
        /// Code tracking of its page.
        track: NonNull<CodeTrack>,
        /// Identity of its page: see [`super::tlb::Entry::phys`].
        phys: u64,
    },
    /// Device registers at this physical address.
    Device(Gpa),
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
        if let Some(entry) = self.run.tlb.find(kind, mode, la) {
            let host = entry.addend.wrapping_add(la) as *mut u8;
            if let Some(host) = NonNull::new(host) {
                return Ok(Target::Memory { host, track: entry.track, phys: entry.phys() });
            }
        }
        self.check_canonical(la)?;
        let mapping = match self.walk(la, kind, mode) {
            Ok(mapping) => mapping,
            Err(code) => return Err(self.page_fault(la, code)),
        };
        if kind != AccessKind::Execute && self.apic.claims(mapping.gpa) {
            return Ok(Target::Device(Gpa(mapping.gpa.0 | (la & 0xfff))));
        }
        let page = self.package.memory.page(mapping.gpa);
        let page = if mode == MmuMode::Enclave {
            match self.enclave_access(la, kind, page)? {
                Some(page) => page,
                None => return Ok(Target::Void),
            }
        } else {
            page
        };
        match page {
            PhysPage::Ram(ram) => {
                if kind == AccessKind::Write && !ram.writable {
                    return Ok(Target::Void);
                }
                let phys = mapping.gpa.0;
                self.run.tlb.fill(
                    kind,
                    mode,
                    la,
                    ram.host,
                    ram.track,
                    phys,
                    mapping.global,
                    mapping.page_size,
                );
                // SAFETY: the offset stays in the page's 4096 bytes.
                let host = unsafe { ram.host.add((la & 0xfff) as usize) };
                Ok(Target::Memory { host, track: ram.track, phys })
            }
            // Outside an enclave, or at an address that `enclave_access` did not let through.
            PhysPage::Epc(index) if mode == MmuMode::Enclave => {
                let Some((host, track)) = self.epc_memory(index) else {
                    return Ok(Target::Void);
                };
                let phys = PHYS_EPC | u64::from(index.0) << 12;
                self.run.tlb.fill(kind, mode, la, host, track, phys, false, 4096);
                // SAFETY: as above.
                let host = unsafe { host.add((la & 0xfff) as usize) };
                Ok(Target::Memory { host, track, phys })
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
        match self.package.memory.page(gpa) {
            PhysPage::Ram(ram) => {
                let offset = (gpa.0 & 0xff8) as usize;
                // SAFETY: the page is valid and the 8 bytes stay in it.
                unsafe { host::load(ram.host.as_ptr().add(offset)) }
            }
            _ => u64::MAX,
        }
    }

    /// Replaces 8 aligned bytes of physical memory if they still are `old`, as the page walk does
    /// to set accessed and dirty bits. `false` if they are not.
    pub(crate) fn physical_update(&self, gpa: Gpa, old: u64, new: u64) -> bool {
        match self.package.memory.page(gpa) {
            PhysPage::Ram(ram) if ram.writable => {
                let offset = (gpa.0 & 0xff8) as usize;
                // SAFETY: the page is valid and the 8 bytes stay in it.
                let was = unsafe {
                    host::update::<u64>(ram.host.as_ptr().add(offset), |now| {
                        if now == old { new } else { now }
                    })
                };
                // SAFETY: the tracker lives as long as the page.
                unsafe { ram.track.as_ref() }.stored(offset, 8);
                was == Some(old)
            }
            _ => true,
        }
    }
}
