//! The host's EPC: who has which page.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_sgx::{EpcIndex, Platform};
use thiserror::Error;

use super::account::{EpcAccount, EpcLimits, Ledger, LimitError};
use super::store::EpcStore;

/// A virtual machine cannot have another page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum EpcExhausted {
    /// All pages are in use, or reserved by other machines.
    #[error("the host's EPC is exhausted")]
    Host,
    /// The machine has as many as it may.
    #[error("the virtual machine's quota of EPC is used up")]
    Quota,
}

/// Pages of a pool, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolStatistics {
    /// All pages.
    pub total: usize,
    /// Pages given out, zombies and leaked pages included.
    pub used: usize,
    /// Pages not in use that only the machines which reserved them can have.
    pub reserved: usize,
    /// SECS pages of released sections that wait for children in another section to go.
    pub zombies: usize,
    /// Pages that EREMOVE refused for a reason other than children; never used again.
    pub leaked: usize,
}

/// Pages of a NUMA node of the host, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeStatistics {
    /// The node.
    pub node: u32,
    /// All of its pages.
    pub total: usize,
    /// Pages given out.
    pub used: usize,
}

/// All EPC pages of a store, given out one by one to the sections of virtual machines, each of
/// which has an [`EpcAccount`].
///
/// Pages that were never given out are not listed anywhere, so a pool of any size is made at once;
/// a page that came back is used again first, because it has host memory already. Giving
/// out a page and taking it back cost the same however many pages there are.
#[derive(Debug)]
pub struct EpcPool<S: EpcStore = Platform> {
    store: Arc<S>,
    state: Mutex<State>,
}

/// `statistics.reserved` is the sum of what the accounts are promised beyond what they use, and
/// never more than the pages that are not in use.
#[derive(Debug)]
struct State {
    /// In the order of their pages.
    sections: Vec<Section>,
    statistics: PoolStatistics,
}

impl State {
    const fn unused(&self) -> usize {
        self.statistics.total - self.statistics.used
    }

    /// Pages that nobody uses or was promised.
    const fn available(&self) -> usize {
        self.unused() - self.statistics.reserved
    }

    fn take(&mut self, wanted: impl Fn(&Section) -> bool) -> Option<EpcIndex> {
        self.sections.iter_mut().filter(|section| wanted(section)).find_map(Section::take)
    }

    /// Changes an account, and what is reserved with it.
    fn change(&mut self, ledger: &mut Ledger, change: impl FnOnce(&mut Self, &mut Ledger)) {
        self.statistics.reserved -= ledger.outstanding();
        change(self, ledger);
        self.statistics.reserved += ledger.outstanding();
    }

    /// A page of `node` if there is one left, else any, for an account that may have another.
    fn allocate(
        &mut self,
        ledger: &mut Ledger,
        limits: EpcLimits,
        node: u32,
    ) -> Result<EpcIndex, EpcExhausted> {
        if ledger.statistics.used >= limits.quota {
            return Err(EpcExhausted::Quota);
        }
        if ledger.outstanding() == 0 && self.available() == 0 {
            return Err(EpcExhausted::Host);
        }
        let index = self
            .take(|section| section.node == node)
            .or_else(|| self.take(|section| section.node != node))
            .ok_or(EpcExhausted::Host)?;
        self.change(ledger, |state, ledger| {
            state.statistics.used += 1;
            ledger.statistics.used += 1;
        });
        Ok(index)
    }

    fn free(&mut self, ledger: &mut Ledger, index: EpcIndex) {
        let section = self.sections.partition_point(|section| section.end <= index.0);
        self.sections[section].free.push(index);
        self.change(ledger, |state, ledger| {
            state.statistics.used -= 1;
            ledger.statistics.used -= 1;
        });
    }
}

#[derive(Debug)]
struct Section {
    node: u32,
    first: u32,
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

    fn used(&self) -> usize {
        (self.next - self.first) as usize - self.free.len()
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

    fn len(&self) -> usize {
        // Blocks below the last are full.
        let last = self.blocks.last().map_or(0, Vec::len);
        self.blocks.len().saturating_sub(1) * BLOCK + last
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

impl<S: EpcStore> EpcPool<S> {
    /// A pool of all pages of a store, none of them in use.
    #[must_use]
    pub fn new(store: Arc<S>) -> Arc<Self> {
        let sections = store.sections().iter().map(|section| Section {
            node: section.node,
            first: section.first.0,
            next: section.first.0,
            end: section.first.0 + section.pages,
            free: FreeList::default(),
        });
        let sections: Vec<Section> = sections.collect();
        let total = sections.iter().map(|section| (section.end - section.first) as usize).sum();
        let statistics = PoolStatistics { total, ..PoolStatistics::default() };
        Arc::new(Self { store, state: Mutex::new(State { sections, statistics }) })
    }

    /// The store whose pages these are.
    #[must_use]
    pub const fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// An account without limits for the virtual machine `name`.
    #[must_use]
    pub fn unlimited(self: &Arc<Self>, name: impl Into<String>) -> Arc<EpcAccount<S>> {
        Arc::new(EpcAccount::new(self.clone(), name.into(), EpcLimits::NONE))
    }

    /// An account with these limits for the virtual machine `name`.
    ///
    /// # Errors
    ///
    /// [`LimitError`].
    pub fn open(
        self: &Arc<Self>,
        name: impl Into<String>,
        limits: EpcLimits,
    ) -> Result<Arc<EpcAccount<S>>, LimitError> {
        let EpcLimits { reservation, quota } = limits;
        if reservation > quota {
            return Err(LimitError::AboveQuota { reservation, quota });
        }
        let account = EpcAccount::new(self.clone(), name.into(), limits);
        self.promise(&account, reservation)
            .map_err(|available| LimitError::Unavailable { reservation, available })?;
        Ok(Arc::new(account))
    }

    /// Sets the pages that an account can count on, those that it has included. The error is the
    /// number of pages that could be promised beyond those in use.
    fn promise(&self, account: &EpcAccount<S>, floor: usize) -> Result<(), usize> {
        let mut state = self.lock();
        let mut ledger = account.ledger();
        let available = state.available() + ledger.outstanding();
        if floor.saturating_sub(ledger.statistics.used) > available {
            return Err(available);
        }
        state.change(&mut ledger, |_, ledger| ledger.floor = floor);
        Ok(())
    }

    /// Keeps pages for an account, so that it can take `more` one by one or none at all: one that
    /// wants too many does not take those of others before it learns so. Ends with
    /// [`Self::unkeep`].
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub(crate) fn keep(&self, account: &EpcAccount<S>, more: usize) -> Result<(), EpcExhausted> {
        let limits = account.limits();
        let wanted = account.statistics().used.saturating_add(more);
        let outcome = if wanted > limits.quota {
            Err(EpcExhausted::Quota)
        } else {
            self.promise(account, wanted.max(limits.reservation)).map_err(|_| EpcExhausted::Host)
        };
        outcome.inspect_err(|reason| refused(account, &mut account.ledger(), *reason))
    }

    /// Keeps no more than the reservation.
    pub(crate) fn unkeep(&self, account: &EpcAccount<S>) {
        let mut state = self.lock();
        state.change(&mut account.ledger(), |_, ledger| {
            ledger.floor = account.limits().reservation;
        });
    }

    /// Takes a page, from NUMA node `node` if it has one left, else from any other. The page is
    /// not valid in the EPCM; its bytes are whatever they were.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub(crate) fn allocate(
        &self,
        account: &EpcAccount<S>,
        node: u32,
    ) -> Result<EpcIndex, EpcExhausted> {
        let outcome = self.lock().allocate(&mut account.ledger(), account.limits(), node);
        outcome.inspect_err(|reason| refused(account, &mut account.ledger(), *reason))
    }

    /// Takes a page back that EREMOVE has made unused.
    pub(crate) fn free(&self, account: &EpcAccount<S>, index: EpcIndex) {
        self.lock().free(&mut account.ledger(), index);
    }

    /// Gives a page up for good: EREMOVE refused it, so using it again could break an enclave.
    pub(crate) fn leak(&self, account: &EpcAccount<S>) {
        self.lock().statistics.leaked += 1;
        account.ledger().statistics.leaked += 1;
    }

    /// Counts SECS pages that wait for their children.
    pub(crate) fn add_zombies(&self, account: &EpcAccount<S>, count: usize) {
        self.lock().statistics.zombies += count;
        account.ledger().statistics.zombies += count;
    }

    /// Takes back a page that waited for its children.
    pub(crate) fn free_zombie(&self, account: &EpcAccount<S>, index: EpcIndex) {
        let mut state = self.lock();
        let mut ledger = account.ledger();
        state.free(&mut ledger, index);
        state.statistics.zombies -= 1;
        ledger.statistics.zombies -= 1;
    }

    /// Ends an account: nothing is reserved for it, and SECS pages that wait do so for ever.
    pub(crate) fn close(&self, account: &EpcAccount<S>) {
        let mut state = self.lock();
        let mut ledger = account.ledger();
        state.change(&mut ledger, |_, ledger| ledger.floor = 0);
        let zombies = std::mem::take(&mut ledger.statistics.zombies);
        state.statistics.zombies -= zombies;
        state.statistics.leaked += zombies;
        drop(state);
        if zombies != 0 {
            tracing::error!(
                vm = account.name(),
                zombies,
                "SECS pages whose children are leaked: leaked"
            );
        }
    }

    /// Counts the pages.
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        self.lock().statistics
    }

    /// Counts the pages of each node, in the order of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeStatistics> {
        let mut nodes = BTreeMap::new();
        for section in &self.lock().sections {
            let node = section.node;
            let counts = nodes.entry(node).or_insert(NodeStatistics { node, total: 0, used: 0 });
            counts.total += (section.end - section.first) as usize;
            counts.used += section.used();
        }
        nodes.into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts that a machine wanted a page and got none. The host learns of the first time; how often
/// it happens is the guest's choice.
fn refused<S: EpcStore>(account: &EpcAccount<S>, ledger: &mut Ledger, reason: EpcExhausted) {
    ledger.statistics.refused += 1;
    if ledger.statistics.refused == 1 {
        tracing::warn!(vm = account.name(), used = ledger.statistics.used, "{reason}");
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
        assert_eq!(list.len(), count as usize);
        let popped: Vec<u32> = std::iter::from_fn(|| list.pop()).map(|index| index.0).collect();
        assert_eq!(popped, (0..count).rev().collect::<Vec<_>>());
        assert!(list.blocks.is_empty());
        assert_eq!(list.len(), 0);
    }
}
