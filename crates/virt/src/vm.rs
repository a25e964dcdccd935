//! The SGX side of a virtual machine on the software platform.

use std::sync::Arc;

use cloister_sgx::{EpcIndex, EpcmView, Platform};
use cloister_x86::Gpa;
use cloister_x86::cpuid::CpuidResult;
use thiserror::Error;

use crate::encls::{EnclsExits, ExitCounters};
use crate::epc::{
    Backing, EpcAccount, EpcCensus, EpcError, EpcExhausted, GuestEpc, RemoveError, VirtualEpc,
};
use crate::policy::{CpuidError, SectionConfig, SgxCpuid, enclv_exiting};
use crate::vcpu::SgxVcpu;

/// Why the SGX that was requested for a virtual machine cannot be provided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum VmError {
    /// The guest's CPUID contradicts itself or says more than the platform can do.
    #[error("unsupported SGX CPUID: {0}")]
    Cpuid(CpuidError),
    /// The sections of virtual EPC cannot be made.
    #[error(transparent)]
    Epc(#[from] EpcError),
}

/// SGX of a virtual machine: its sections and its policy.
#[derive(Debug)]
pub struct SgxVm {
    epc: GuestEpc,
    sections: Vec<SectionConfig>,
    cpuid: SgxCpuid,
    pub(crate) exits: ExitCounters,
}

impl SgxVm {
    /// A virtual machine with these sections, which draw on `account`, whose CPUID says `cpuid`.
    ///
    /// # Errors
    ///
    /// [`VmError`].
    pub fn new(
        account: Arc<EpcAccount>,
        sections: &[SectionConfig],
        cpuid: SgxCpuid,
    ) -> Result<Self, VmError> {
        let platform = account.pool().store();
        cpuid
            .check(platform.capabilities(), platform.le_hash_writable())
            .map_err(VmError::Cpuid)?;
        let epc = GuestEpc::new(account, sections)?;
        Ok(Self { epc, sections: sections.to_vec(), cpuid, exits: ExitCounters::default() })
    }

    /// The platform under the virtual machine.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        self.account().pool().store()
    }

    /// What the machine may take of the host's EPC, and has.
    #[must_use]
    pub const fn account(&self) -> &Arc<EpcAccount> {
        self.epc.account()
    }

    /// The sections in order.
    #[must_use]
    pub fn sections(&self) -> &[VirtualEpc] {
        self.epc.sections()
    }

    /// What the guest's CPUID says.
    #[must_use]
    pub const fn cpuid(&self) -> &SgxCpuid {
        &self.cpuid
    }

    /// Adds SGX to the answer of CPUID. See [`SgxCpuid::amend`].
    #[must_use]
    pub fn amend_cpuid(&self, leaf: u32, subleaf: u32, result: CpuidResult) -> CpuidResult {
        self.cpuid.amend(leaf, subleaf, result, &self.sections)
    }

    /// A virtual processor after reset and firmware. See [`SgxVcpu::new`].
    #[must_use]
    pub fn new_vcpu(self: &Arc<Self>) -> SgxVcpu {
        SgxVcpu::new(self.clone())
    }

    /// How many ENCLS leaves of all its processors exited so far.
    #[must_use]
    pub fn encls_exits(&self) -> EnclsExits {
        self.exits.read()
    }

    /// ENCLV-exiting bitmap for the guest's processors. See [`enclv_exiting`].
    #[must_use]
    pub fn enclv_exiting(&self) -> Option<u64> {
        enclv_exiting(&self.cpuid)
    }

    /// What backs a guest-physical address; `None` if it is in no section.
    #[must_use]
    pub fn backing(&self, gpa: Gpa) -> Option<Backing> {
        self.epc.backing(gpa)
    }

    /// Gives a page of virtual EPC its backing; `None` if `gpa` is in no section.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub fn populate(&self, gpa: Gpa) -> Option<Result<EpcIndex, EpcExhausted>> {
        self.epc.populate(gpa)
    }

    /// Makes every page of every section unused. See [`GuestEpc::reset`].
    ///
    /// # Errors
    ///
    /// [`RemoveError`] if a page is in use.
    pub fn reset(&self) -> Result<(), RemoveError> {
        self.epc.reset()
    }

    /// Counts pages and lists enclaves. See [`GuestEpc::census`].
    pub fn census(&self, visit: impl FnMut(usize, usize, &EpcmView)) -> EpcCensus {
        self.epc.census(visit)
    }
}
