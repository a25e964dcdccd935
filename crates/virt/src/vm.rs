//! The SGX side of a virtual machine.

use std::sync::Arc;

use cloister_sgx::{EpcIndex, Platform};
use cloister_x86::cpuid::CpuidResult;
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use crate::cpuid::SgxCpuid;
use crate::msr::SgxVcpu;
use crate::pool::{EpcExhausted, EpcPool};
use crate::vepc::{Backing, RemoveError, VirtualEpc};

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
    /// The host's EPC does not suffice to preallocate a section.
    #[error("the host's EPC does not suffice to preallocate section {0}")]
    Exhausted(usize),
}

/// SGX of a virtual machine: its sections and its policy.
#[derive(Debug)]
pub struct SgxVm {
    pool: Arc<EpcPool>,
    sections: Vec<VirtualEpc>,
    cpuid: SgxCpuid,
}

impl SgxVm {
    /// A virtual machine with these sections whose CPUID says `cpuid`.
    ///
    /// # Errors
    ///
    /// [`VmError`].
    pub fn new(
        pool: Arc<EpcPool>,
        sections: &[SectionConfig],
        cpuid: SgxCpuid,
    ) -> Result<Self, VmError> {
        let mut made = Vec::with_capacity(sections.len());
        for (n, config) in sections.iter().enumerate() {
            if config.size == 0
                || config.size % PAGE_SIZE != 0
                || !config.base.is_aligned(PAGE_SIZE)
            {
                return Err(VmError::Size(n));
            }
            let pages = usize::try_from(config.size / PAGE_SIZE).map_err(|_| VmError::Size(n))?;
            let section = VirtualEpc::new(pool.clone(), config.base, pages, config.node);
            if config.preallocate {
                section.preallocate().map_err(|EpcExhausted| VmError::Exhausted(n))?;
            }
            made.push(section);
        }
        Ok(Self { pool, sections: made, cpuid })
    }

    /// The platform under the virtual machine.
    #[must_use]
    pub fn platform(&self) -> &Arc<Platform> {
        self.pool.platform()
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

    /// ENCLS-exiting bitmap for a virtual processor: the leaves that policy has a say in.
    ///
    /// EINIT always exits: the launch-control hash is the guest's own, never the host's. ECREATE
    /// exits where the guest may do less than the platform. Every leaf exits where firmware did
    /// not enable SGX.
    #[must_use]
    pub fn encls_exiting(&self, vcpu: &SgxVcpu) -> u64 {
        use cloister_sgx::encls::leaf;
        if !vcpu.sgx_enabled() {
            return u64::MAX;
        }
        let platform = self.platform().capabilities();
        let mut bitmap = 1 << leaf::EINIT;
        if self.cpuid.capabilities != *platform {
            bitmap |= 1 << leaf::ECREATE;
        }
        // A leaf that the guest's CPUID does not announce exits to become #UD.
        for leaf in 0..64 {
            if !self.cpuid.has_encls_leaf(leaf) {
                bitmap |= 1 << leaf;
            }
        }
        bitmap
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
        for _ in 0..2 {
            for section in &self.sections {
                section.remove_all()?;
            }
        }
        Ok(())
    }
}
