//! The platform: EPC, EPCM, capabilities and secrets, shared by all logical processors.

use core::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::capabilities::{Capabilities, SgxFeatures};
use crate::epc::{EpcIndex, EpcPage, LazyTable, PageStore};
use crate::epcm::{EpcmEntry, EpcmView};
use crate::identity::{PlatformFuses, PlatformIdentity};
use crate::xsave::{XFRM_SUPPORTED, legal_xcr0};

/// SHA-256 of the modulus that signs Intel's launch enclave, as IA32_SGXLEPUBKEYHASH0-3 hold it
/// after reset on processors that are not locked to another signer.
pub const DEFAULT_LE_HASH: [u8; 32] = {
    let quads: [u64; 4] = [
        0xa605_3e05_1270_b7ac,
        0x6cfb_e8ba_8b3b_413d,
        0xc491_6d99_f2b3_735d,
        0xd4f8_c059_09f9_bb3b,
    ];
    let mut hash = [0; 32];
    let mut at = 0;
    while at < 32 {
        hash[at] = quads[at / 8].to_le_bytes()[at % 8];
        at += 1;
    }
    hash
};

/// One EPC section of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpcSectionConfig {
    /// Size in pages of 4 KiB; not 0.
    pub pages: u32,
    /// NUMA node that the section belongs to.
    pub node: u32,
}

/// How a [`Platform`] is made.
#[derive(Clone, Debug)]
pub struct PlatformConfig {
    /// EPC sections, in the order of their indices.
    pub sections: Vec<EpcSectionConfig>,
    /// Keys and security versions.
    pub identity: PlatformIdentity,
    /// What IA32_SGXLEPUBKEYHASH0-3 hold at reset.
    pub default_le_hash: [u8; 32],
    /// Whether the host lets IA32_SGXLEPUBKEYHASH0-3 be written (launch control is unlocked).
    pub le_hash_writable: bool,
    /// What CPUID 12H enumerates.
    pub capabilities: Capabilities,
}

impl PlatformConfig {
    /// A platform with one section of `pages` pages on node 0, this identity, unlocked launch
    /// control and the default capabilities.
    #[must_use]
    pub fn single(pages: u32, identity: PlatformIdentity) -> Self {
        Self {
            sections: vec![EpcSectionConfig { pages, node: 0 }],
            identity,
            default_le_hash: DEFAULT_LE_HASH,
            le_hash_writable: true,
            capabilities: Capabilities::default(),
        }
    }
}

/// Why a [`PlatformConfig`] was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// A section has no pages.
    #[error("EPC section {index} has no pages")]
    EmptySection {
        /// Its place in the configuration.
        index: usize,
    },
    /// The sections together exceed what EPC indices can name.
    #[error("the EPC sections exceed 2^32 pages in total")]
    TooLarge,
    /// The capabilities contradict each other or exceed the model.
    #[error("unsupported SGX capabilities: {0}")]
    Capabilities(&'static str),
}

/// One EPC section of a platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpcSection {
    /// Index of its first page.
    pub first: EpcIndex,
    /// Size in pages.
    pub pages: u32,
    /// NUMA node.
    pub node: u32,
}

/// One host's SGX: the EPC, its EPCM, the capabilities and the keys. Shared through an `Arc` by
/// all logical processors and all virtual machines.
pub struct Platform {
    config: PlatformConfig,
    sections: Vec<EpcSection>,
    total: u32,
    store: PageStore,
    epcm: LazyTable<EpcmEntry>,
    next_eid: AtomicU64,
    paging_version: AtomicU64,
}

impl core::fmt::Debug for Platform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Platform").field("sections", &self.sections).finish_non_exhaustive()
    }
}

impl Platform {
    /// A platform after reset: every EPC page unused and none of them backed by host memory.
    ///
    /// # Errors
    /// [`PlatformError`] if the configuration cannot be a platform.
    pub fn new(config: PlatformConfig) -> Result<Self, PlatformError> {
        let capabilities = &config.capabilities;
        if !capabilities.features.contains(SgxFeatures::SGX1) {
            return Err(PlatformError::Capabilities("SGX1 is required"));
        }
        if capabilities.miscselect & !crate::attributes::MISCSELECT_EXINFO != 0 {
            return Err(PlatformError::Capabilities("MISCSELECT has bits other than EXINFO"));
        }
        if capabilities
            .attributes
            .intersects(crate::AttributeFlags::INIT | crate::AttributeFlags::CET)
        {
            return Err(PlatformError::Capabilities("INIT and CET cannot be attributes"));
        }
        if capabilities.xfrm & 3 != 3
            || capabilities.xfrm & !XFRM_SUPPORTED != 0
            || !legal_xcr0(capabilities.xfrm)
        {
            return Err(PlatformError::Capabilities("XFRM is not a legal XCR0"));
        }
        if capabilities.max_enclave_size_64 > 63 || capabilities.max_enclave_size_not64 > 32 {
            return Err(PlatformError::Capabilities("the largest enclave exceeds memory"));
        }
        let mut sections = Vec::with_capacity(config.sections.len());
        let mut total = 0u32;
        for (index, section) in config.sections.iter().enumerate() {
            if section.pages == 0 {
                return Err(PlatformError::EmptySection { index });
            }
            sections.push(EpcSection {
                first: EpcIndex(total),
                pages: section.pages,
                node: section.node,
            });
            total = total.checked_add(section.pages).ok_or(PlatformError::TooLarge)?;
        }
        Ok(Self {
            config,
            sections,
            total,
            store: PageStore::new(total),
            epcm: LazyTable::new(total),
            // EID 0 is never given out, so that it can stand for "no enclave" in PCMD.
            next_eid: AtomicU64::new(1),
            paging_version: AtomicU64::new(1),
        })
    }

    /// The EPC sections, in order.
    #[must_use]
    pub fn sections(&self) -> &[EpcSection] {
        &self.sections
    }

    /// EPC pages of all sections: every [`EpcIndex`] below this number names a page.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.total as usize
    }

    /// What CPUID 12H enumerates.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.config.capabilities
    }

    /// What IA32_SGXLEPUBKEYHASH0-3 hold at reset.
    #[must_use]
    pub const fn default_le_hash(&self) -> &[u8; 32] {
        &self.config.default_le_hash
    }

    /// Whether IA32_SGXLEPUBKEYHASH0-3 may be written.
    #[must_use]
    pub const fn le_hash_writable(&self) -> bool {
        self.config.le_hash_writable
    }

    /// CR_CPUSVN.
    #[must_use]
    pub const fn cpusvn(&self) -> &[u8; 16] {
        &self.config.identity.fuses.cpusvn
    }

    /// An EPC page, whose host memory is allocated on first touch and lives as long as the
    /// platform.
    ///
    /// # Panics
    /// If `index` does not name a page of this platform.
    #[must_use]
    #[inline]
    pub fn page(&self, index: EpcIndex) -> EpcPage<'_> {
        self.store.page(index)
    }

    /// The EPCM entry of a page as it is now. For statistics and tests: by the time the caller
    /// looks at it, it may have changed. No leaf notices, and a page that was never used costs
    /// nothing.
    ///
    /// # Panics
    /// If `index` does not name a page of this platform.
    #[must_use]
    pub fn epcm(&self, index: EpcIndex) -> EpcmView {
        assert!(index.0 < self.total, "EPC index {} outside the platform's EPC", index.0);
        self.epcm.peek(index).map_or(EpcmView::UNUSED, EpcmEntry::view)
    }

    /// Number of pages of the EPC whose host memory has been allocated.
    #[must_use]
    pub fn backed_pages(&self) -> usize {
        self.store.backed_chunks() * crate::epc::CHUNK_PAGES
    }

    pub(crate) fn entry(&self, index: EpcIndex) -> &EpcmEntry {
        self.epcm.get(index)
    }

    pub(crate) const fn identity(&self) -> &PlatformIdentity {
        &self.config.identity
    }

    pub(crate) const fn fuses(&self) -> &PlatformFuses {
        &self.config.identity.fuses
    }

    /// LockedXAdd(CR_NEXT_EID, 1).
    pub(crate) fn next_eid(&self) -> u64 {
        self.next_eid.fetch_add(1, Ordering::Relaxed)
    }

    /// A version that no evicted page of this platform had before.
    pub(crate) fn next_paging_version(&self) -> u64 {
        self.paging_version.fetch_add(1, Ordering::Relaxed)
    }
}
