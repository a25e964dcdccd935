//! What virtual EPC asks of the EPC that it is made of.

use std::fmt;

use cloister_sgx::{EnclaveView, EpcIndex, EpcSection, EpcmView, Platform, SgxStatus};
use cloister_x86::Exception;

/// What removing a page came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Removal {
    /// It is not in use any more: anyone can have it.
    Removed,
    /// It is an SECS with children. It can go after them.
    ChildPresent,
    /// Anything else that EREMOVE said. Nobody can have the page.
    Refused(Result<SgxStatus, Exception>),
}

/// The host's EPC, or the part of it that a hypervisor was given: pages that it hands out to guests
/// and takes back. Pages are numbered from 0, in the order of the sections.
///
/// The software [`Platform`] is one, shared by all virtual machines of a process. A mapping of
/// Linux's `/dev/sgx_vepc` can be one for a single machine: its pages are those of the mapping, the
/// kernel backs each when the guest touches it, [`EpcStore::remove_all`] is
/// `SGX_IOC_VEPC_REMOVE_ALL`, which returns the same number, and nobody can look at a page. As a
/// page goes back to the kernel only when the file is closed, and no other machine draws on such a
/// store, its [`EpcStore::remove`] has nothing to do.
pub trait EpcStore: fmt::Debug + Send + Sync {
    /// The sections, in the order of their pages.
    fn sections(&self) -> &[EpcSection];

    /// Makes `page` unused, whatever a guest left in it, before it goes to another.
    fn remove(&self, page: EpcIndex) -> Removal;

    /// Makes all `pages` unused, for a guest that is reset and keeps them. Returns how many SECS
    /// pages are left because of children; after another call for all pages of the guest there is
    /// none.
    ///
    /// # Errors
    ///
    /// A page is in use: the guest's processors have to stop first. Pages after it are as they
    /// were. A store that removes its pages one by one has taken the page in use from `pages` last.
    fn remove_all(&self, pages: &mut dyn Iterator<Item = EpcIndex>) -> Result<usize, InUse> {
        let mut left = 0;
        for page in pages {
            match self.remove(page) {
                Removal::Removed => {}
                Removal::ChildPresent => left += 1,
                Removal::Refused(_) => return Err(InUse),
            }
        }
        Ok(left)
    }

    /// The EPCM entry of a page, where it can be seen.
    fn epcm(&self, page: EpcIndex) -> Option<EpcmView>;

    /// The enclave whose SECS is this page, where it can be seen; `None` for other pages.
    fn enclave(&self, secs: EpcIndex) -> Option<EnclaveView>;
}

/// A page is in use by a running enclave or leaf ([`EpcStore::remove_all`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse;

impl EpcStore for Platform {
    fn sections(&self) -> &[EpcSection] {
        self.sections()
    }

    fn remove(&self, page: EpcIndex) -> Removal {
        match self.eremove(page) {
            Ok(SgxStatus::Success) => Removal::Removed,
            Ok(SgxStatus::ChildPresent) => Removal::ChildPresent,
            said => Removal::Refused(said),
        }
    }

    fn epcm(&self, page: EpcIndex) -> Option<EpcmView> {
        Some(self.epcm(page))
    }

    fn enclave(&self, secs: EpcIndex) -> Option<EnclaveView> {
        self.enclave(secs)
    }
}
