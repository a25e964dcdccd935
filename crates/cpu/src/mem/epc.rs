//! EPC at linear addresses: the access check of enclave mode, and EPC memory.

use std::ptr::NonNull;

use cloister_sgx::{Access, AccessOutcome, EpcIndex, SgxFeatures, check_access};
use cloister_x86::{Exception, La};

use crate::cpu::Cpu;
use crate::exit::{Exec, Stop};
use crate::mem::PageBytes;
use crate::mem::tlb::AccessKind;
use crate::phys::{PhysPage, Tracker};

impl Cpu {
    /// The access check of enclave mode for a page that the page tables allow: what is to be
    /// accessed, or `None` for the abort page (SDM Vol. 3D, 35.3).
    ///
    /// # Errors
    ///
    /// #PF with the SGX bit, or #GP(0) for a fetch from outside ELRANGE.
    pub(crate) fn enclave_access(
        &mut self,
        la: u64,
        kind: AccessKind,
        page: PhysPage,
    ) -> Exec<Option<PhysPage>> {
        let Some(platform) = self.package.platform.as_ref() else {
            return Ok(Some(page));
        };
        let index = match page {
            PhysPage::Epc(index) => Some(index),
            _ => None,
        };
        let access = match kind {
            AccessKind::Read => Access::Read,
            AccessKind::Write => Access::Write,
            AccessKind::Execute => Access::Execute,
        };
        match check_access(platform, &self.enclave, La(la), index, access) {
            AccessOutcome::Allowed => Ok(Some(page)),
            AccessOutcome::AbortPage => Ok(None),
            AccessOutcome::Fault(exception) => Err(self.sgx_fault(exception)),
        }
    }

    /// Raises a fault of SGX, as CPUID promises it.
    pub(crate) fn sgx_fault(&mut self, exception: Exception) -> Stop {
        self.raise(self.ctl.features.sgx.delivered(exception))
    }

    /// RDTSC and RDTSCP are legal in an enclave where there is SGX2 (SDM Vol. 3D, 36.6.1).
    ///
    /// # Errors
    ///
    /// #UD.
    pub(crate) fn check_enclave_tsc(&mut self) -> Exec {
        if self.enclave.in_enclave() && !self.ctl.features.has_sgx(SgxFeatures::SGX2) {
            Err(self.ud())
        } else {
            Ok(())
        }
    }

    /// The memory of an EPC page; `None` on a machine without SGX.
    #[must_use]
    pub(crate) fn epc_memory(&self, index: EpcIndex) -> Option<PageBytes> {
        let page = self.package.platform.as_ref()?.page(index);
        let track = self.package.epc_track.get(index.0 as usize)?;
        let host = NonNull::from_ref(page.words).cast();
        #[expect(unsafe_code, reason = "the EPC outlives what points to it")]
        // SAFETY: pages of the EPC are whole, aligned and made of atomics, and stay where they are
        // while the platform lives. It and the tracking belong to the package.
        Some(unsafe { PageBytes::new(host, Tracker::new(NonNull::from_ref(track))) })
    }

    /// Drops code decoded from an EPC page whose contents a leaf has replaced.
    pub(crate) fn epc_written(&self, index: EpcIndex) {
        if let Some(track) = self.package.epc_track.get(index.0 as usize) {
            track.stored(0, 4096);
        }
    }
}
