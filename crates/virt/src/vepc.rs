//! Virtual EPC: a section of a guest, backed page by page.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cloister_sgx::{EpcIndex, SgxStatus};
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use crate::pool::{EpcExhausted, EpcPool};

/// Pages whose backing is recorded together.
const CHUNK: usize = 512;

/// What is behind a page of virtual EPC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// This page of the host's EPC.
    Page(EpcIndex),
    /// Nothing yet.
    None,
}

/// [`VirtualEpc::remove_all`] met a page that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("an EPC page at {gpa} is in use by a running enclave or leaf")]
pub struct RemoveError {
    /// Guest-physical address of the page.
    pub gpa: Gpa,
}

type Chunk = Box<[AtomicU32; CHUNK]>;

/// An EPC section of a guest.
///
/// The guest manages the pages itself with ENCLS; the host only lends them, on first touch, and
/// takes them back when the section is dropped. A page that was never touched costs nothing.
#[derive(Debug)]
pub struct VirtualEpc {
    pool: Arc<EpcPool>,
    base: Gpa,
    pages: usize,
    node: u32,
    /// EPC index + 1 of each page, 0 for one without backing.
    map: Box<[OnceLock<Chunk>]>,
    /// Held while a page is given its backing.
    populating: Mutex<()>,
}

impl VirtualEpc {
    /// A section of `pages` pages at guest-physical address `base`, backed from `pool` with pages
    /// of host node `node` where possible.
    #[must_use]
    pub fn new(pool: Arc<EpcPool>, base: Gpa, pages: usize, node: u32) -> Self {
        let map = std::iter::repeat_with(OnceLock::new).take(pages.div_ceil(CHUNK)).collect();
        Self { pool, base, pages, node, map, populating: Mutex::new(()) }
    }

    /// First guest-physical address.
    #[must_use]
    pub const fn base(&self) -> Gpa {
        self.base
    }

    /// Size in pages.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.pages as u64 * PAGE_SIZE
    }

    /// Number of the page that holds `gpa`, if it is one of this section.
    fn number(&self, gpa: Gpa) -> Option<usize> {
        let offset = gpa.0.checked_sub(self.base.0)?;
        (offset < self.size()).then_some((offset / PAGE_SIZE) as usize)
    }

    /// What is behind `gpa`; `None` if it is not in this section. Takes no lock.
    #[must_use]
    pub fn backing(&self, gpa: Gpa) -> Option<Backing> {
        let number = self.number(gpa)?;
        let stored = self.map[number / CHUNK]
            .get()
            .map_or(0, |chunk| chunk[number % CHUNK].load(Ordering::Acquire));
        Some(stored.checked_sub(1).map_or(Backing::None, |index| Backing::Page(EpcIndex(index))))
    }

    /// Gives the page at `gpa` its backing, unless it has one. `None` if it is not in this
    /// section.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub fn populate(&self, gpa: Gpa) -> Option<Result<EpcIndex, EpcExhausted>> {
        let number = self.number(gpa)?;
        let _guard = self.populating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Backing::Page(index)) = self.backing(gpa) {
            return Some(Ok(index));
        }
        Some(self.pool.allocate(self.node).inspect(|index| {
            let chunk = self.map[number / CHUNK]
                .get_or_init(|| Box::new([const { AtomicU32::new(0) }; CHUNK]));
            chunk[number % CHUNK].store(index.0 + 1, Ordering::Release);
        }))
    }

    /// Backs every page.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`]; the pages backed so far stay so.
    pub fn preallocate(&self) -> Result<(), EpcExhausted> {
        for number in 0..self.pages {
            let gpa = self.base.wrapping_add(number as u64 * PAGE_SIZE);
            if let Some(outcome) = self.populate(gpa) {
                outcome?;
            }
        }
        Ok(())
    }

    /// All backed pages: number and EPC index.
    fn backed(&self) -> impl Iterator<Item = (usize, EpcIndex)> {
        self.map.iter().enumerate().flat_map(|(n, chunk)| {
            chunk.get().into_iter().flat_map(move |chunk| {
                chunk.iter().enumerate().filter_map(move |(m, stored)| {
                    let index = stored.load(Ordering::Acquire).checked_sub(1)?;
                    Some((n * CHUNK + m, EpcIndex(index)))
                })
            })
        })
    }

    /// Makes every page of the section unused, as a guest's reset needs it; the backing stays.
    /// Returns how many SECS pages are left because children of theirs exist: after one more call
    /// on each section of the guest none is (`SGX_IOC_VEPC_REMOVE_ALL`).
    ///
    /// # Errors
    ///
    /// [`RemoveError`] if a page is in use: the guest's processors have to stop first.
    pub fn remove_all(&self) -> Result<usize, RemoveError> {
        let mut left = 0;
        for (number, index) in self.backed() {
            match self.pool.platform().eremove(index) {
                Ok(SgxStatus::Success) => {}
                Ok(SgxStatus::ChildPresent) => left += 1,
                Ok(_) | Err(_) => {
                    let gpa = self.base.wrapping_add(number as u64 * PAGE_SIZE);
                    return Err(RemoveError { gpa });
                }
            }
        }
        Ok(left)
    }
}

impl Drop for VirtualEpc {
    /// Gives the pages back: children first, then the SECS pages that had some in this section.
    fn drop(&mut self) {
        let mut parents = Vec::new();
        for (_, index) in self.backed() {
            match self.pool.platform().eremove(index) {
                Ok(SgxStatus::Success) => self.pool.free(index),
                Ok(SgxStatus::ChildPresent) => parents.push(index),
                Ok(other) => self.pool.leak(index, other),
                // Another leaf holds the page, though no processor of the guest is left.
                Err(_) => self.pool.leak(index, SgxStatus::EpcPageConflict),
            }
        }
        for secs in parents {
            match self.pool.platform().eremove(secs) {
                Ok(SgxStatus::Success) => self.pool.free(secs),
                Ok(SgxStatus::ChildPresent) => self.pool.add_zombie(secs),
                Ok(other) => self.pool.leak(secs, other),
                Err(_) => self.pool.leak(secs, SgxStatus::EpcPageConflict),
            }
        }
        self.pool.reap_zombies();
    }
}
