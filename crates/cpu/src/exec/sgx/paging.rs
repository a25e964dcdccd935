//! The EPC behind linear addresses: the access check of enclave mode, and EPC memory.

use std::ptr::NonNull;

use cloister_sgx::{Access, AccessOutcome, EpcIndex, SgxFeatures, check_access};
use cloister_x86::{Exception, La, PageFaultCode, Vector};

use crate::exit::Stop;
use crate::mem::tlb::AccessKind;
use crate::phys::{CodeTrack, PhysPage};
use crate::state::{Cpu, Exec};

impl Cpu {
    /// The access check of enclave mode for a page that the page tables allow: what is to be
    /// accessed, or `None` for the abort page (SDM Vol. 3D, 35.3).
    ///
    /// # Errors
    ///
    /// #PF with the SGX bit, or #GP(0) for a fetch from outside ELRANGE.
    pub fn enclave_access(
        &mut self,
        la: u64,
        kind: AccessKind,
        page: PhysPage,
    ) -> Exec<Option<PhysPage>> {
        let Some(platform) = self.shared.platform.as_ref() else {
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

    /// Whether the platform has the SGX2 leaves, and what came with them.
    fn has_sgx2(&self) -> bool {
        let platform = self.shared.platform.as_ref();
        platform
            .is_some_and(|platform| platform.capabilities().features.contains(SgxFeatures::SGX2))
    }

    /// Raises a fault of SGX: what the EPCM forbids is #PF with the SGX bit with SGX2, and #GP(0)
    /// without.
    pub(super) fn sgx_fault(&mut self, exception: Exception) -> Stop {
        let epcm =
            exception.vector == Vector::Pf && exception.error_code & PageFaultCode::SGX.bits() != 0;
        if epcm && !self.has_sgx2() { self.gp(0) } else { self.raise(exception) }
    }

    /// RDTSC and RDTSCP are legal in an enclave where there is SGX2 (SDM Vol. 3D, 36.6.1).
    ///
    /// # Errors
    ///
    /// #UD.
    pub(crate) fn check_enclave_tsc(&mut self) -> Exec {
        if self.enclave.in_enclave() && !self.has_sgx2() { Err(self.ud()) } else { Ok(()) }
    }

    /// The bytes and the code tracking of an EPC page; `None` on a machine without SGX.
    #[must_use]
    pub fn epc_memory(&self, index: EpcIndex) -> Option<(NonNull<u8>, NonNull<CodeTrack>)> {
        let page = self.shared.platform.as_ref()?.page(index);
        let track = self.shared.epc_track.get(index.0 as usize)?;
        Some((NonNull::from(&page.words).cast(), NonNull::from(track)))
    }

    /// Drops code decoded from an EPC page whose contents a leaf has replaced.
    pub(crate) fn epc_written(&self, index: EpcIndex) {
        if let Some(track) = self.shared.epc_track.get(index.0 as usize) {
            track.stored(0, 4096);
        }
    }
}
