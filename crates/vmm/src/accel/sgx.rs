//! The SGX of a guest, whoever executes it.

use std::sync::Arc;

use cloister_virt::{RemoveError, SgxVm};
use cloister_x86::cpuid::CpuidResult;
use thiserror::Error;

use super::kvm::{HostSgx, VepcResetError};

/// The SGX of a guest.
#[derive(Clone, Debug)]
pub enum GuestSgx {
    /// Of a platform in this process.
    Soft(Arc<SgxVm>),
    /// Of the host's processors.
    Host(Arc<HostSgx>),
}

/// Why virtual EPC cannot be made unused.
#[derive(Debug, Error)]
pub enum EpcResetError {
    /// That of a platform in this process.
    #[error(transparent)]
    Soft(RemoveError),
    /// That of the host.
    #[error(transparent)]
    Host(VepcResetError),
}

impl GuestSgx {
    /// Adds SGX to the answer of CPUID.
    #[must_use]
    pub fn amend_cpuid(&self, leaf: u32, subleaf: u32, result: CpuidResult) -> CpuidResult {
        match self {
            Self::Soft(sgx) => sgx.amend_cpuid(leaf, subleaf, result),
            Self::Host(sgx) => sgx.amend_cpuid(leaf, subleaf, result),
        }
    }

    /// Makes every page of every section unused. Called while no processor runs.
    ///
    /// # Errors
    ///
    /// [`EpcResetError`] if a page is in use.
    pub fn reset(&self) -> Result<(), EpcResetError> {
        match self {
            Self::Soft(sgx) => sgx.reset().map_err(EpcResetError::Soft),
            Self::Host(sgx) => sgx.reset().map_err(EpcResetError::Host),
        }
    }

    /// That of a platform in this process.
    #[must_use]
    pub const fn soft(&self) -> Option<&Arc<SgxVm>> {
        match self {
            Self::Soft(sgx) => Some(sgx),
            Self::Host(_) => None,
        }
    }

    /// That of the host's processors.
    #[must_use]
    pub const fn host(&self) -> Option<&Arc<HostSgx>> {
        match self {
            Self::Soft(_) => None,
            Self::Host(sgx) => Some(sgx),
        }
    }
}
