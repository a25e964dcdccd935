//! The SGX side of a virtual machine.

use std::sync::Arc;

use cloister_sgx::encls::leaf;
use cloister_sgx::{EpcIndex, Platform, SgxFeatures};
use cloister_x86::cpuid::CpuidResult;
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use crate::account::EpcAccount;
use crate::cpuid::SgxCpuid;
use crate::encls::{EnclsExits, ExitCounters};
use crate::msr::SgxVcpu;
use crate::pool::EpcExhausted;
use crate::vepc::{Backing, RemoveError, VirtualEpc};

/// EPC sections that a guest can have: the number that Linux reads (`SGX_MAX_EPC_SECTIONS`).
pub const MAX_SECTIONS: usize = 8;

/// One past the highest address of a section: CPUID.12H tells bits 51:12 (SDM Vol. 3D, 34.7.2).
const ADDRESS_END: u64 = 1 << 52;

/// An EPC section that a guest is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionConfig {
    /// First guest-physical address, a multiple of the page size.
    pub base: Gpa,
    /// Size in bytes, a multiple of the page size and not 0.
    pub size: u64,
    /// Host NUMA node to take pages from first.
    pub node: u32,
    /// Whether every page is backed from the beginning.
    pub preallocate: bool,
}

/// Why a virtual machine cannot have the sections that it was to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum VmError {
    /// A section is empty, or not made of whole pages.
    #[error("EPC section {0} is not a whole number of 4 KiB pages")]
    Size(usize),
    /// More sections than Linux reads from CPUID.
    #[error("{0} EPC sections are more than the {MAX_SECTIONS} that a guest looks for")]
    Count(usize),
    /// A section does not lie within 52 bits of address, all that CPUID 12H can tell.
    #[error("EPC section {0} ends above the highest physical address")]
    Address(usize),
    /// A section shares pages with an earlier one.
    #[error("EPC section {0} overlaps another")]
    Overlap(usize),
    /// The guest's CPUID contradicts itself or says more than the platform can do.
    #[error("unsupported SGX CPUID: {0}")]
    Cpuid(&'static str),
    /// The host's EPC does not suffice to preallocate a section.
    #[error("the host's EPC does not suffice to preallocate section {0}")]
    Exhausted(usize),
    /// The machine's quota does not suffice to preallocate a section.
    #[error("the machine's quota of EPC does not suffice to preallocate section {0}")]
    Quota(usize),
}

/// SGX of a virtual machine: its sections and its policy.
#[derive(Debug)]
pub struct SgxVm {
    account: Arc<EpcAccount>,
    sections: Vec<VirtualEpc>,
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
        cpuid.check(account.pool().platform()).map_err(VmError::Cpuid)?;
        if sections.len() > MAX_SECTIONS {
            return Err(VmError::Count(sections.len()));
        }
        let mut made: Vec<VirtualEpc> = Vec::with_capacity(sections.len());
        for (n, config) in sections.iter().enumerate() {
            let SectionConfig { base, size, node, preallocate } = *config;
            if size == 0 || !size.is_multiple_of(PAGE_SIZE) || !base.is_aligned(PAGE_SIZE) {
                return Err(VmError::Size(n));
            }
            let end = base.0.checked_add(size).filter(|&end| end <= ADDRESS_END);
            let end = end.ok_or(VmError::Address(n))?;
            let meets =
                |other: &VirtualEpc| base.0 < other.base().0 + other.size() && other.base().0 < end;
            if made.iter().any(meets) {
                return Err(VmError::Overlap(n));
            }
            let pages = usize::try_from(size / PAGE_SIZE).map_err(|_| VmError::Size(n))?;
            let section = VirtualEpc::new(account.clone(), base, pages, node);
            if preallocate {
                section.preallocate().map_err(|reason| match reason {
                    EpcExhausted::Host => VmError::Exhausted(n),
                    EpcExhausted::Quota => VmError::Quota(n),
                })?;
            }
            made.push(section);
        }
        Ok(Self { account, sections: made, cpuid, exits: ExitCounters::default() })
    }

    /// The platform under the virtual machine.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        self.account.pool().platform()
    }

    /// What the machine may take of the host's EPC, and has.
    #[must_use]
    pub const fn account(&self) -> &Arc<EpcAccount> {
        &self.account
    }

    /// The sections in order.
    #[must_use]
    pub fn sections(&self) -> &[VirtualEpc] {
        &self.sections
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

    /// The SGX state of a virtual processor after reset.
    #[must_use]
    pub fn new_vcpu(&self) -> SgxVcpu {
        SgxVcpu::new(&self.cpuid, self.platform().default_le_hash())
    }

    /// ENCLS-exiting bitmap for a virtual processor (`vmx_write_encls_bitmap` in Linux's KVM):
    /// bit n for leaf n, bit 63 for every leaf from 63 up (SDM Vol. 2, ENCLS). To be asked again
    /// after a write to IA32_FEATURE_CONTROL.
    ///
    /// EINIT always exits: the launch-control hash is the guest's own, never the host's. ECREATE
    /// exits where the guest's SECS may have less than the platform's. A leaf that the guest's
    /// CPUID does not announce exits to become #GP(0), and so does every leaf where firmware did not
    /// enable SGX.
    #[must_use]
    pub fn encls_exiting(&self, vcpu: &SgxVcpu) -> u64 {
        if !vcpu.sgx_enabled() {
            return u64::MAX;
        }
        let policy = |number: u32| match number {
            leaf::EINIT => true,
            leaf::ECREATE => !self.cpuid.allows_every_secs_of(self.platform().capabilities()),
            _ => false,
        };
        (0..64)
            .filter(|&number| policy(number) || !self.cpuid.has_encls_leaf(number))
            .fold(0, |bitmap, number| bitmap | 1 << number)
    }

    /// How many ENCLS leaves of all its processors exited so far.
    #[must_use]
    pub fn encls_exits(&self) -> EnclsExits {
        self.exits.read()
    }

    /// ENCLV-exiting bitmap for the guest's processors; `None` leaves the control "enable ENCLV
    /// exiting" clear, so that ENCLV is #UD: the guest's CPUID does not announce it. Policy has no
    /// say in its leaves.
    #[must_use]
    pub fn enclv_exiting(&self) -> Option<u64> {
        let features = self.cpuid.capabilities.features;
        features.contains(SgxFeatures::OVERSUB_ENCLV).then_some(0)
    }

    /// What is behind a guest-physical address; `None` if it is in no section.
    #[must_use]
    pub fn backing(&self, gpa: Gpa) -> Option<Backing> {
        self.sections.iter().find_map(|section| section.backing(gpa))
    }

    /// Gives a page of virtual EPC its backing; `None` if `gpa` is in no section.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub fn populate(&self, gpa: Gpa) -> Option<Result<EpcIndex, EpcExhausted>> {
        self.sections.iter().find_map(|section| section.populate(gpa))
    }

    /// Makes every page of every section unused, for a reset of the guest: a pass for children,
    /// then one for the SECS pages. No processor of the guest may be running.
    ///
    /// # Errors
    ///
    /// [`RemoveError`] if a page is in use.
    pub fn reset(&self) -> Result<(), RemoveError> {
        let pass = || {
            let removed = self.sections.iter().map(VirtualEpc::remove_all);
            removed.sum::<Result<usize, RemoveError>>()
        };
        // All children of the guest's SECS pages are in its own sections.
        if pass()? != 0 {
            let left = pass()?;
            debug_assert_eq!(left, 0, "an SECS has children in no section of its machine");
        }
        Ok(())
    }
}
