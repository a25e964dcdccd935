//! Paging-structure entries of 4-level paging (SDM Vol. 3A, 4.5).

use bitflags::bitflags;

bitflags! {
    /// Bits of a paging-structure entry. The address bits are taken with [`PTE_ADDRESS`].
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Pte: u64 {
        /// P: present.
        const PRESENT = 1 << 0;
        /// R/W: writes allowed.
        const WRITE = 1 << 1;
        /// U/S: user-mode accesses allowed.
        const USER = 1 << 2;
        /// PWT: page-level write-through.
        const PWT = 1 << 3;
        /// PCD: page-level cache disable.
        const PCD = 1 << 4;
        /// A: accessed.
        const ACCESSED = 1 << 5;
        /// D: dirty.
        const DIRTY = 1 << 6;
        /// PS: the entry maps a 2 MiB or 1 GiB page.
        const PAGE_SIZE = 1 << 7;
        /// G: global translation.
        const GLOBAL = 1 << 8;
        /// XD: execute disable.
        const NO_EXECUTE = 1 << 63;
    }
}

/// Physical-address bits of a paging-structure entry, before reserved bits are checked
/// against MAXPHYADDR.
pub const PTE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
