//! The host's EPC: who has which page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_sgx::{EpcIndex, Platform, SgxStatus};
use thiserror::Error;

/// The pool has no page left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the host's EPC is exhausted")]
pub struct EpcExhausted;

/// Pages of a pool, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolStatistics {
    /// All pages.
    pub total: usize,
    /// Pages given out, zombies and leaked pages included.
    pub used: usize,
    /// SECS pages of released sections that wait for children in another section to go.
    pub zombies: usize,
    /// Pages that EREMOVE refused for a reason other than children; never used again.
    pub leaked: usize,
}

/// All EPC pages of a platform, given out one by one to virtual EPC sections.
///
/// Pages that were never given out are not listed anywhere, so a pool of any size is made at once;
/// a page that came back is used again first, because host memory is behind it already. Giving
/// out a page and taking it back cost the same however many pages there are.
#[derive(Debug)]
pub struct EpcPool {
    platform: Arc<Platform>,
    state: Mutex<State>,
    /// SECS pages that wait for children in sections not released yet
    /// (`zombie_secs_pages` in Linux). Locked before `state`.
    zombies: Mutex<Vec<EpcIndex>>,
}

#[derive(Debug)]
struct State {
    /// In the order of their pages.
    sections: Vec<Section>,
    used: usize,
    leaked: usize,
}

impl State {
    fn take(&mut self, wanted: impl Fn(&Section) -> bool) -> Option<EpcIndex> {
        self.sections.iter_mut().filter(|section| wanted(section)).find_map(Section::take)
    }
}

#[derive(Debug)]
struct Section {
    node: u32,
    /// Pages from here on were never given out.
    next: u32,
    end: u32,
    /// Pages that came back.
    free: FreeList,
}

impl Section {
    fn take(&mut self) -> Option<EpcIndex> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(EpcIndex(self.next - 1))
    }
}

/// Pages in one block of a [`FreeList`]: 4 KiB of indices.
const BLOCK: usize = 1024;

/// A stack of pages in blocks of fixed size: however many pages a huge section gives back, none of
/// them waits for a growing vector to be copied.
#[derive(Debug, Default)]
struct FreeList {
    /// None of them is empty.
    blocks: Vec<Vec<EpcIndex>>,
}

impl FreeList {
    fn push(&mut self, index: EpcIndex) {
        if let Some(block) = self.blocks.last_mut().filter(|block| block.len() < BLOCK) {
            block.push(index);
            return;
        }
        let mut block = Vec::with_capacity(BLOCK);
        block.push(index);
        self.blocks.push(block);
    }

    fn pop(&mut self) -> Option<EpcIndex> {
        let block = self.blocks.last_mut()?;
        let index = block.pop();
        if block.is_empty() {
            self.blocks.pop();
        }
        index
    }
}

impl EpcPool {
    /// A pool of all pages of a platform, none of them in use.
    #[must_use]
    pub fn new(platform: Arc<Platform>) -> Arc<Self> {
        let sections = platform
            .sections()
            .iter()
            .map(|section| Section {
                node: section.node,
                next: section.first.0,
                end: section.first.0 + section.pages,
                free: FreeList::default(),
            })
            .collect();
        let state = State { sections, used: 0, leaked: 0 };
        Arc::new(Self { platform, state: Mutex::new(state), zombies: Mutex::default() })
    }

    /// The platform whose pages these are.
    #[must_use]
    pub const fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    /// Takes a page, from NUMA node `node` if it has one left, else from any other. The page is
    /// not valid in the EPCM; its bytes are whatever they were.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub fn allocate(&self, node: u32) -> Result<EpcIndex, EpcExhausted> {
        let mut state = self.lock();
        let index = state
            .take(|section| section.node == node)
            .or_else(|| state.take(|section| section.node != node))
            .ok_or(EpcExhausted)?;
        state.used += 1;
        Ok(index)
    }

    /// Takes a page back that EREMOVE has made unused.
    pub(crate) fn free(&self, index: EpcIndex) {
        let mut state = self.lock();
        let section = state.sections.partition_point(|section| section.end <= index.0);
        state.sections[section].free.push(index);
        state.used -= 1;
    }

    /// Gives a page up for good: EREMOVE refused it, so using it again could break an enclave.
    pub(crate) fn leak(&self) {
        self.lock().leaked += 1;
    }

    /// Takes over SECS pages that EREMOVE refused because of children, which must be in sections
    /// that were not released yet, and tries again every such page there is: the release that has
    /// just ended may have removed the last child of any.
    ///
    /// The list stays locked meanwhile, so of two releases at the same time the later one sees
    /// what the earlier one left.
    pub(crate) fn retry_zombies(&self, more: impl Iterator<Item = EpcIndex>) {
        let mut zombies = self.lock_zombies();
        zombies.extend(more);
        zombies.retain(|&secs| {
            let removed = self.platform.eremove(secs) == Ok(SgxStatus::Success);
            if removed {
                self.free(secs);
            }
            !removed
        });
    }

    /// Counts the pages.
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        let zombies = self.lock_zombies();
        let state = self.lock();
        PoolStatistics {
            total: self.platform.pages(),
            used: state.used,
            zombies: zombies.len(),
            leaked: state.leaked,
        }
    }

    // Every change under either lock is complete before anything can panic.

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_zombies(&self) -> MutexGuard<'_, Vec<EpcIndex>> {
        self.zombies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_list_gives_every_page_back_and_keeps_no_empty_block() {
        let mut list = FreeList::default();
        let count = 2 * BLOCK as u32 + 1;

        (0..count).for_each(|page| list.push(EpcIndex(page)));

        assert!(list.blocks.iter().all(|block| block.capacity() == BLOCK));
        let popped: Vec<u32> = std::iter::from_fn(|| list.pop()).map(|index| index.0).collect();
        assert_eq!(popped, (0..count).rev().collect::<Vec<_>>());
        assert!(list.blocks.is_empty());
    }
}
