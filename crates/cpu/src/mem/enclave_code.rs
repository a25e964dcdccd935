//! Code of an enclave, from one entry to the next.
//!
//! Enclave entry and exit drop the translations that were made inside (SDM Vol. 3D, 35.5.4), and what
//! depends on them are lookups of decoded code. A small enclave that is called over and over would look
//! up each of its blocks again in each call. The pages that its code was found in are few, so an entry
//! asks once for each whether code at its address would be fetched from the same page of the EPC, and
//! where all are the same, the lookups of the time before hold.

use cloister_sgx::{Access, AccessOutcome, check_access};
use cloister_x86::paging::{PTE_ADDRESS, Pte};
use cloister_x86::{Gpa, La};

use super::translate::PHYS_EPC;
use crate::cpu::Cpu;
use crate::phys::PhysPage;

/// Pages to ask for at an entry: for more, new lookups are cheaper, as a call may need few of them.
const MOST_PAGES: usize = 16;

/// Lookups of enclave code, and the pages that they went through.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct EnclaveCode {
    /// Whether the processor is inside an enclave.
    inside: bool,
    /// Changes when lookups are dropped: in place of the world's count of flushes inside enclaves.
    flushes: u64,
    /// Linear address and identity (see [`Entry::phys`](super::tlb::Entry::phys)) of each page since
    /// then, and of one more than [`MOST_PAGES`] if there are more.
    pages: Vec<(u64, u64)>,
}

impl EnclaveCode {
    pub(super) fn set_inside(&mut self, inside: bool) {
        self.inside = inside;
    }

    /// What lookups depend on inside an enclave; `None` outside.
    pub(super) fn flushes_inside(&self) -> Option<u64> {
        self.inside.then_some(self.flushes)
    }

    /// Drops all lookups. `flushes` stood for none before.
    pub(super) fn forget(&mut self, flushes: u64) {
        self.flushes = flushes;
        self.pages.clear();
    }

    /// Code was found in a page.
    pub(super) fn note(&mut self, la: u64, phys: u64) {
        if self.inside && self.pages.len() <= MOST_PAGES && !self.pages.contains(&(la, phys)) {
            self.pages.push((la, phys));
        }
    }
}

impl Cpu {
    /// Whether code of the enclave that the processor has just entered would be fetched from where it
    /// was found when the processor was inside before.
    pub(crate) fn enclave_code_stays(&self) -> bool {
        let pages = &self.run.tlb.enclave_code().pages;
        // The code that lookups are kept for is of 64-bit mode.
        self.run.mode.is_64()
            && self.guest_controls().is_none()
            && pages.len() <= MOST_PAGES
            && pages.iter().all(|&(la, phys)| self.enclave_code_page(la) == Some(phys))
    }

    /// The identity of the page that code at `la` would be fetched from; `None` where it would fault, or
    /// set an accessed bit.
    fn enclave_code_page(&self, la: u64) -> Option<u64> {
        let needed = Pte::PRESENT | Pte::USER | Pte::ACCESSED;
        let fetches = |entry: u64, level, leaf| {
            let pte = Pte::from_bits_retain(entry);
            pte.contains(needed)
                && !pte.contains(Pte::NO_EXECUTE)
                && entry & self.reserved_bits(level, leaf) == 0
        };
        let table = self.arch.cr3 & PTE_ADDRESS;
        let gpa = self.descend(la, table, 4, fetches, Some)?;
        let PhysPage::Epc(index) = self.package.memory.page(Gpa(gpa & !0xfff)) else {
            return None;
        };
        let platform = self.package.platform.as_ref()?;
        let access = check_access(platform, &self.enclave, La(la), Some(index), Access::Execute);
        (access == AccessOutcome::Allowed).then_some(PHYS_EPC | u64::from(index.0) << 12)
    }
}
