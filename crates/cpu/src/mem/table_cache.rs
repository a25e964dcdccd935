//! The paging-structure cache (SDM Vol. 3A, 4.10.3): where walks of 4-level paging found page tables.
//!
//! Of the caches that the SDM allows there is one, of page-directory entries that lead to a page table. A
//! walk that it begins and that ends in a fault is done again from the root: no fault comes from a cached
//! entry (4.10.4.3 lets software that only adds rights flush nothing).

#![cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "the number of an entry is a small one")
)]

use cloister_x86::paging::Pte;

/// Entries.
const ENTRIES: usize = 128;

/// What a walk knows when it comes to a page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageTable {
    /// Guest-physical address of the table.
    pub(super) address: u64,
    /// Rights that all levels above give: W and U.
    pub(super) rights: Pte,
    /// Whether a level above has XD set.
    pub(super) no_execute: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// la >> 21, and above it the number of the context, which is not 0.
    tag: u64,
    table: PageTable,
}

const NO_TABLE: PageTable = PageTable { address: 0, rights: Pte::empty(), no_execute: false };
const EMPTY: Entry = Entry { tag: 0, table: NO_TABLE };

/// Page tables that were found, by linear address and context.
#[derive(Debug)]
pub(super) struct TableCache {
    entries: Box<[Entry; ENTRIES]>,
}

impl Default for TableCache {
    fn default() -> Self {
        Self { entries: Box::new([EMPTY; ENTRIES]) }
    }
}

impl TableCache {
    fn tag(la: u64, context: u64) -> u64 {
        la >> 21 | context << 43
    }

    fn entry(&mut self, la: u64) -> &mut Entry {
        let number = la >> 21 ^ la >> 30;
        &mut self.entries[(number % ENTRIES as u64) as usize]
    }

    pub(super) fn find(&mut self, la: u64, context: u64) -> Option<PageTable> {
        let entry = self.entry(la);
        (entry.tag == Self::tag(la, context)).then_some(entry.table)
    }

    pub(super) fn fill(&mut self, la: u64, context: u64, table: PageTable) {
        *self.entry(la) = Entry { tag: Self::tag(la, context), table };
    }

    /// Drops what was found for `la`.
    pub(super) fn drop_one(&mut self, la: u64) {
        *self.entry(la) = EMPTY;
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.entries.fill(EMPTY);
    }
}
