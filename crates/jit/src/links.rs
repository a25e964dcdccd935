//! What leads from block to block: see `docs/design/translator.md`.

use std::collections::HashMap;

/// Where a jump from one block to another place led last, and for how long it may be followed unasked. In
/// memory that translated code writes. An entry of zeros leads nowhere, since no key is 0.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Link {
    /// Linear address of the target.
    pub(crate) la: u64,
    /// Key that the processor has to have still.
    pub(crate) key: u64,
    /// The target's code.
    pub(crate) code: u64,
    /// Count of code changes that has to stand still.
    pub(crate) changes: u32,
    /// Which of the processor's keys: offset from the first one, in bytes.
    pub(crate) which: u32,
}

/// A block's code for who knows that it is in the page at `layout::PAGE`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) code: u64,
    /// Generation of its page.
    pub(crate) generation: u32,
}

/// The blocks that others of their page can jump to, and the jumps that wait for one. Places are
/// `BlockView::key`.
#[derive(Debug, Default)]
pub(crate) struct Places {
    known: HashMap<u64, Known>,
    /// Where the rel32 of the jumps are.
    waiting: HashMap<u64, Vec<u64>>,
}

impl Places {
    /// The block at a place, if it is of this generation of the page.
    pub(crate) fn find(&self, place: u64, generation: u32) -> Option<u64> {
        let known = self.known.get(&place)?;
        (known.generation == generation).then_some(known.code)
    }

    /// Adds a block.
    pub(crate) fn insert(&mut self, place: u64, known: Known) {
        self.known.insert(place, known);
    }

    /// Has a jump, whose rel32 is at `site`, wait for the block at a place.
    pub(crate) fn wait(&mut self, place: u64, site: u64) {
        self.waiting.entry(place).or_default().push(site);
    }

    /// The jumps that wait for the block at a place, which wait no longer.
    pub(crate) fn take_waiting(&mut self, place: u64) -> Vec<u64> {
        self.waiting.remove(&place).unwrap_or_default()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.waiting.clear();
    }
}
