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
    /// Pages that EREMOVE refused for no reason that time mends; never used again.
    pub leaked: usize,
}

/// All EPC pages of a platform, given out one by one to virtual EPC sections.
#[derive(Debug)]
pub struct EpcPool {
    platform: Arc<Platform>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sections: Vec<Section>,
    zombies: Vec<EpcIndex>,
    used: usize,
    leaked: usize,
}

#[derive(Debug)]
struct Section {
    node: u32,
    first: u32,
    /// Pages from here on were never given out: host memory behind them is untouched.
    next: u32,
    end: u32,
    /// Pages that came back.
    free: Vec<EpcIndex>,
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

impl EpcPool {
    /// A pool of all pages of a platform, none of them in use.
    #[must_use]
    pub fn new(platform: Arc<Platform>) -> Arc<Self> {
        let sections = platform
            .sections()
            .iter()
            .map(|section| Section {
                node: section.node,
                first: section.first.0,
                next: section.first.0,
                end: section.first.0 + section.pages,
                free: Vec::new(),
            })
            .collect();
        let state = State { sections, zombies: Vec::new(), used: 0, leaked: 0 };
        Arc::new(Self { platform, state: Mutex::new(state) })
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
        let state = &mut *self.lock();
        let (local, other): (Vec<_>, Vec<_>) =
            state.sections.iter_mut().partition(|section| section.node == node);
        let index = local.into_iter().chain(other).find_map(Section::take).ok_or(EpcExhausted)?;
        state.used += 1;
        Ok(index)
    }

    /// Takes a page back that EREMOVE has made unused.
    pub(crate) fn free(&self, index: EpcIndex) {
        let state = &mut *self.lock();
        let section = state
            .sections
            .iter_mut()
            .find(|section| (section.first..section.end).contains(&index.0));
        if let Some(section) = section {
            section.free.push(index);
            state.used -= 1;
        }
    }

    /// Gives a page up for good: EREMOVE refused it, so using it again could break an enclave.
    pub(crate) fn leak(&self, index: EpcIndex, why: SgxStatus) {
        tracing::error!(page = index.0, code = ?why, "EREMOVE refused an EPC page, which is leaked");
        self.lock().leaked += 1;
    }

    /// Keeps an SECS whose children live in a section that was not released yet.
    pub(crate) fn add_zombie(&self, secs: EpcIndex) {
        self.lock().zombies.push(secs);
    }

    /// Tries the zombies again; some section was released.
    pub(crate) fn reap_zombies(&self) {
        let zombies = std::mem::take(&mut self.lock().zombies);
        for secs in zombies {
            match self.platform.eremove(secs) {
                Ok(SgxStatus::Success) => self.free(secs),
                Ok(SgxStatus::ChildPresent) | Err(_) => self.add_zombie(secs),
                Ok(other) => self.leak(secs, other),
            }
        }
    }

    /// Counts the pages.
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        let state = self.lock();
        PoolStatistics {
            total: self.platform.pages(),
            used: state.used,
            zombies: state.zombies.len(),
            leaked: state.leaked,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
