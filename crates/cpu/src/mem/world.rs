//! Translations of one address space of address spaces: of the hypervisor, or of one of its guests on
//! this processor (SDM Vol. 3C, 28.4). A VM entry and a VM exit change worlds and drop nothing.

use cloister_x86::regs::{Cr0, Cr4, Efer};

/// Whose translations they are: VPID and EPT pointer; zeros outside VMX non-root operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WorldKey {
    pub(crate) vpid: u16,
    pub(crate) eptp: u64,
}

/// What translations depend on besides the paging structures. Software that changes it otherwise than
/// by the instructions that drop translations, as a hypervisor does in a VMCS, finds them dropped too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Paging {
    pub(crate) cr0: Cr0,
    pub(crate) cr3: u64,
    pub(crate) cr4: Cr4,
    pub(crate) efer: Efer,
    pub(crate) pdptes: [u64; 4],
}

impl Paging {
    /// The current PCID (SDM Vol. 3A, 4.10.1).
    pub(crate) fn pcid(&self) -> u16 {
        if self.cr4.contains(Cr4::PCIDE) { (self.cr3 & 0xfff) as u16 } else { 0 }
    }
}

/// A set of page numbers that may have more members than were put in.
#[derive(Debug)]
pub(super) struct PageFilter(Box<[u64; Self::BITS / 64]>);

impl PageFilter {
    const BITS: usize = 1 << 13;

    pub(super) fn new() -> Self {
        Self(Box::new([0; Self::BITS / 64]))
    }

    fn place(page: u64) -> (usize, u64) {
        let hash = (page ^ page >> 13) % Self::BITS as u64;
        ((hash / 64) as usize, 1 << (hash % 64))
    }

    pub(super) fn insert(&mut self, page: u64) {
        let (word, bit) = Self::place(page);
        self.0[word] |= bit;
    }

    pub(super) fn contains(&self, page: u64) -> bool {
        let (word, bit) = Self::place(page);
        self.0[word] & bit != 0
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// A world. Its numbers come from counters of the TLB, so that no two worlds have one in common.
#[derive(Debug)]
pub(super) struct World {
    pub(super) key: WorldKey,
    /// What its translations were made under, when it was left.
    pub(super) paging: Option<Paging>,
    /// Context of each PCID; 0: none yet.
    pub(super) contexts: Box<[u16]>,
    /// Number of the current context.
    pub(super) context: u64,
    pub(super) pcid: u16,
    /// Distinguishes global translations made before and after global flushes: 1 to FFFH.
    pub(super) global_epoch: u64,
    /// Large pages that entries were filled from: by la >> 21, and for pages beyond 2 MiB (which
    /// are of 1 GiB, or of 4 MiB in 32-bit paging) also by la >> 30.
    pub(super) large: PageFilter,
    pub(super) huge: PageFilter,
    /// Changes when translations of global pages in the upper half that code was found through may
    /// have been dropped: lookups of code in such pages depend on this alone. Below 2^48.
    pub(super) code_epoch: u64,
    /// Changes with flushes of pages that code was found through. Below 2^36.
    pub(super) code_flushes: u64,
    /// Pages that code was found through.
    pub(super) code_pages: PageFilter,
}

impl World {
    pub(super) fn new(key: WorldKey) -> Self {
        Self {
            key,
            paging: None,
            contexts: vec![0; 4096].into_boxed_slice(),
            context: 0,
            pcid: 0,
            global_epoch: 0,
            large: PageFilter::new(),
            huge: PageFilter::new(),
            code_epoch: 0,
            code_flushes: 0,
            code_pages: PageFilter::new(),
        }
    }
}
