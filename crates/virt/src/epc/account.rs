//! What one virtual machine may take of the host's EPC, and what it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_sgx::{EpcIndex, Platform};
use thiserror::Error;

use super::pool::EpcPool;
use super::store::{EpcStore, Removal};

/// Pages that a virtual machine can count on, and those that it cannot exceed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpcLimits {
    /// Pages that the machine can have at any time, whatever others take.
    pub reservation: usize,
    /// Pages that the machine can have at most, those that wait for their children and those that
    /// were leaked included.
    pub quota: usize,
}

impl EpcLimits {
    /// No reservation and no quota: whatever the pool has.
    pub const NONE: Self = Self { reservation: 0, quota: usize::MAX };
}

/// Why a virtual machine cannot have its limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LimitError {
    /// The machine could never use its reservation.
    #[error("a reservation of {reservation} EPC pages is more than the quota of {quota}")]
    AboveQuota {
        /// Pages to be reserved.
        reservation: usize,
        /// Pages that the machine could have at most.
        quota: usize,
    },
    /// The pool has too few pages that are neither in use nor reserved by others.
    #[error("{reservation} EPC pages cannot be reserved, because {available} are left")]
    Unavailable {
        /// Pages to be reserved.
        reservation: usize,
        /// Pages that can be.
        available: usize,
    },
}

/// Pages of a virtual machine, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccountStatistics {
    /// Pages that it has, zombies and leaked pages included.
    pub used: usize,
    /// SECS pages of released sections that wait for children in another section to go.
    pub zombies: usize,
    /// Pages that EREMOVE refused for a reason other than children; never used again.
    pub leaked: usize,
    /// Times that it wanted a page and got none.
    pub refused: u64,
}

/// The counts and the promise of an account. Locked after the pool's state.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) statistics: AccountStatistics,
    /// Pages that the pool has promised; those in use count towards them.
    pub(crate) floor: usize,
}

impl Ledger {
    /// Pages that the pool has to keep for this account beyond those in use.
    pub(crate) const fn outstanding(&self) -> usize {
        self.floor.saturating_sub(self.statistics.used)
    }
}

/// The account of a virtual machine with the host's [`EpcPool`]. All of its sections draw on it.
///
/// The children of an SECS are pages of the same guest, so the SECS pages that wait for children
/// (`zombie_secs_pages` in Linux, one list for the host) are kept here: however many a guest leaves
/// behind, no other machine's release looks at them.
#[derive(Debug)]
pub struct EpcAccount<S: EpcStore = Platform> {
    pool: Arc<EpcPool<S>>,
    name: String,
    limits: EpcLimits,
    ledger: Mutex<Ledger>,
    /// Locked before the pool's state.
    zombies: Mutex<Vec<EpcIndex>>,
}

impl<S: EpcStore> EpcAccount<S> {
    /// An account without a promise.
    pub(crate) fn new(pool: Arc<EpcPool<S>>, name: String, limits: EpcLimits) -> Self {
        let ledger = Ledger { statistics: AccountStatistics::default(), floor: 0 };
        Self { pool, name, limits, ledger: Mutex::new(ledger), zombies: Mutex::default() }
    }

    /// The pool that it draws on.
    #[must_use]
    pub const fn pool(&self) -> &Arc<EpcPool<S>> {
        &self.pool
    }

    /// The name of the virtual machine, for messages to the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the machine can count on and cannot exceed.
    #[must_use]
    pub const fn limits(&self) -> EpcLimits {
        self.limits
    }

    /// Counts the machine's pages.
    #[must_use]
    pub fn statistics(&self) -> AccountStatistics {
        self.ledger().statistics
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Every change under the lock is complete before anything can panic.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over SECS pages that EREMOVE refused because of children, which must be in sections
    /// that were not released yet, and tries again every such page there is: the release that has
    /// just ended may have removed the last child of any.
    ///
    /// The list stays locked meanwhile, so of two releases at the same time the later one sees
    /// what the earlier one left.
    pub(crate) fn retry_zombies(&self, more: Vec<EpcIndex>) {
        let mut zombies = self.zombies.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.add_zombies(self, more.len());
        zombies.extend(more);
        zombies.retain(|&secs| {
            let removed = self.pool.store().remove(secs) == Removal::Removed;
            if removed {
                self.pool.free_zombie(self, secs);
            }
            !removed
        });
    }
}

impl<S: EpcStore> Drop for EpcAccount<S> {
    /// The machine has no section any more. An SECS that still waits does so for a child that was
    /// leaked, which nobody will ever remove, so it is leaked as well.
    fn drop(&mut self) {
        self.retry_zombies(Vec::new());
        self.pool.close(self);
    }
}
