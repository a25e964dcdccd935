//! Virtual EPC: a section of a guest, backed page by page.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use cloister_sgx::{EpcIndex, Platform};
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use super::account::EpcAccount;
use super::pool::EpcExhausted;
use super::store::{EpcStore, InUse, Removal};

/// Entries of each level of the map of a section, but for the topmost.
const ENTRIES: usize = 512;

/// EPC index + 1 of each page of 2 MiB, 0 for one without backing.
type Leaf = [AtomicU32; ENTRIES];

/// The leaves of 1 GiB, each made when its first page is backed.
type Directory = [OnceLock<Box<Leaf>>; ENTRIES];

/// Pages that a [`Directory`] covers.
const DIRECTORY_PAGES: usize = ENTRIES * ENTRIES;

/// Pages that are removed before other threads get their turn.
const TURN: usize = 4096;

/// Leaked pages of one release that are named in the log; the others are counted in one more line,
/// because a guest chooses how many they are.
const NAMED_LEAKS: usize = 16;

/// What backs a page of virtual EPC.
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
    /// Guest-physical address of the page; that of its section where the store cannot tell.
    pub gpa: Gpa,
}

/// An EPC section of a guest.
///
/// The guest manages the pages itself with ENCLS; the host only lends them, on first touch, and
/// takes them back when the section is dropped. A page that was never touched costs nothing: the
/// map of an untouched section of 512 GiB is a table of 512 empty entries.
#[derive(Debug)]
pub struct VirtualEpc<S: EpcStore = Platform> {
    account: Arc<EpcAccount<S>>,
    base: Gpa,
    pages: usize,
    node: u32,
    map: Box<[OnceLock<Box<Directory>>]>,
    /// Held while a page is given its backing.
    populating: Mutex<()>,
    faults: AtomicU64,
}

impl<S: EpcStore> VirtualEpc<S> {
    /// A section of `pages` pages at guest-physical address `base` of the machine that `account` is
    /// of, backed with pages of host node `node` where possible.
    #[must_use]
    pub fn new(account: Arc<EpcAccount<S>>, base: Gpa, pages: usize, node: u32) -> Self {
        let map =
            std::iter::repeat_with(OnceLock::new).take(pages.div_ceil(DIRECTORY_PAGES)).collect();
        Self {
            account,
            base,
            pages,
            node,
            map,
            populating: Mutex::new(()),
            faults: AtomicU64::new(0),
        }
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

    /// The record of a page, if one was made.
    fn record(&self, number: usize) -> Option<&AtomicU32> {
        let directory = self.map[number / DIRECTORY_PAGES].get()?;
        let leaf = directory[number / ENTRIES % ENTRIES].get()?;
        Some(&leaf[number % ENTRIES])
    }

    /// The record of a page, made if need be.
    fn make_record(&self, number: usize) -> &AtomicU32 {
        let directory = self.map[number / DIRECTORY_PAGES]
            .get_or_init(|| Box::new([const { OnceLock::new() }; ENTRIES]));
        let leaf = directory[number / ENTRIES % ENTRIES]
            .get_or_init(|| Box::new([const { AtomicU32::new(0) }; ENTRIES]));
        &leaf[number % ENTRIES]
    }

    /// What backs `gpa`; `None` if it is not in this section. Takes no lock.
    #[must_use]
    pub fn backing(&self, gpa: Gpa) -> Option<Backing> {
        let number = self.number(gpa)?;
        let stored = self.record(number).map_or(0, |record| record.load(Ordering::Acquire));
        Some(stored.checked_sub(1).map_or(Backing::None, |index| Backing::Page(EpcIndex(index))))
    }

    /// Host NUMA node that pages are taken from first.
    #[must_use]
    pub const fn node(&self) -> u32 {
        self.node
    }

    /// EPC faults: how often the guest touched a page without backing, whether it then got one or
    /// not. Pages that are preallocated cause none.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Gives the page at `gpa`, which the guest touches, its backing, unless it has one. `None` if
    /// it is not in this section.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub fn populate(&self, gpa: Gpa) -> Option<Result<EpcIndex, EpcExhausted>> {
        let number = self.number(gpa)?;
        if let Some(Backing::Page(index)) = self.backing(gpa) {
            return Some(Ok(index));
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        Some(self.back(number))
    }

    /// Gives a page its backing, unless it has one.
    fn back(&self, number: usize) -> Result<EpcIndex, EpcExhausted> {
        let _guard = self.populating.lock().unwrap_or_else(PoisonError::into_inner);
        // The record first: an allocation that fails after the page was taken would lose it.
        let record = self.make_record(number);
        if let Some(index) = record.load(Ordering::Acquire).checked_sub(1) {
            return Ok(EpcIndex(index));
        }
        let index = self.account.pool().allocate(&self.account, self.node)?;
        record.store(index.0 + 1, Ordering::Release);
        Ok(index)
    }

    /// Backs every page, or none that is not backed yet: a section that the pool has not enough
    /// pages for takes none away from other machines.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub fn preallocate(&self) -> Result<(), EpcExhausted> {
        let pool = self.account.pool();
        pool.keep(&self.account, self.pages - self.backed().count())?;
        let outcome = (0..self.pages).try_for_each(|number| self.back(number).map(drop));
        pool.unkeep(&self.account);
        outcome
    }

    /// All backed pages: address, EPC index and record.
    fn backed(&self) -> impl Iterator<Item = (Gpa, EpcIndex, &AtomicU32)> {
        let directories = self.map.iter().enumerate();
        let leaves = directories.flat_map(|(n, directory)| {
            let leaves = directory.get().into_iter().flat_map(|leaves| leaves.iter());
            leaves.enumerate().map(move |(m, leaf)| (n * ENTRIES + m, leaf))
        });
        leaves.flat_map(move |(n, leaf)| {
            let records = leaf.get().into_iter().flat_map(|leaf| leaf.iter());
            records.enumerate().filter_map(move |(m, record)| {
                let index = record.load(Ordering::Acquire).checked_sub(1)?;
                let gpa = self.base.wrapping_add((n * ENTRIES + m) as u64 * PAGE_SIZE);
                Some((gpa, EpcIndex(index), record))
            })
        })
    }

    /// [`Self::backed`] for work on pages of which there may be millions: other threads of the host
    /// get their turn (`cond_resched` in Linux).
    pub(crate) fn yielding(&self) -> impl Iterator<Item = (Gpa, EpcIndex, &AtomicU32)> {
        self.backed().enumerate().map(|(n, page)| {
            if n % TURN == TURN - 1 {
                thread::yield_now();
            }
            page
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
        let mut last = self.base;
        let mut pages = self.yielding().map(|(gpa, index, _)| {
            last = gpa;
            index
        });
        let left = self.account.pool().store().remove_all(&mut pages);
        drop(pages);
        left.map_err(|InUse| RemoveError { gpa: last })
    }

    /// One page after the other, so that a large section keeps nobody from the pool for longer
    /// than a page takes. Returns the pages that EREMOVE refuses.
    fn release(&self) -> impl Iterator<Item = (Gpa, EpcIndex, Removal)> {
        self.yielding().filter_map(|(gpa, index, record)| {
            let outcome = self.account.pool().store().remove(index);
            if outcome == Removal::Removed {
                record.store(0, Ordering::Release);
                self.account.pool().free(&self.account, index);
                return None;
            }
            Some((gpa, index, outcome))
        })
    }
}

impl<S: EpcStore> Drop for VirtualEpc<S> {
    /// Gives the pages back, in two passes as `sgx_vepc_release` in Linux: the first takes the
    /// children and refuses the SECS pages that had some, the second takes those. An SECS that
    /// still has children has them in another section, and waits for that as a zombie. A page
    /// that is refused for any other reason is given up.
    fn drop(&mut self) {
        let vm = self.account.name();
        self.release().for_each(drop);
        let mut zombies = Vec::new();
        let mut leaked = 0_usize;
        for (gpa, index, outcome) in self.release() {
            let code = match outcome {
                Removal::ChildPresent => {
                    zombies.push(index);
                    continue;
                }
                Removal::Removed => continue,
                Removal::Refused(code) => code,
            };
            self.account.pool().leak(&self.account);
            leaked += 1;
            if leaked <= NAMED_LEAKS {
                tracing::error!(vm, %gpa, page = index.0, ?code, "EREMOVE refused an EPC page: leaked");
            }
        }
        if leaked > NAMED_LEAKS {
            tracing::error!(vm, base = %self.base, leaked, "EREMOVE refused EPC pages: leaked");
        }
        self.account.retry_zombies(zombies);
    }
}

#[cfg(test)]
mod tests {
    use cloister_sgx::{Platform, PlatformConfig, PlatformIdentity};

    use super::*;
    use crate::epc::EpcPool;

    const GIB: u64 = 1 << 30;

    fn section(gib: u64, host_pages: u32) -> VirtualEpc {
        let identity = PlatformIdentity::from_seed(&[1; 32]);
        let platform = Platform::new(PlatformConfig::single(host_pages, identity)).unwrap();
        let pool = EpcPool::new(Arc::new(platform));
        VirtualEpc::new(pool.unlimited("vm"), Gpa(1 << 40), (gib * GIB / PAGE_SIZE) as usize, 0)
    }

    /// Directories and leaves that exist.
    fn tables(section: &VirtualEpc) -> (usize, usize) {
        let directories: Vec<_> = section.map.iter().filter_map(OnceLock::get).collect();
        let leaves = directories.iter().flat_map(|leaves| leaves.iter());
        (directories.len(), leaves.filter(|leaf| leaf.get().is_some()).count())
    }

    #[test]
    fn an_untouched_section_of_512_gib_has_one_table_of_8_kib() {
        let section = section(512, 1);

        assert_eq!(size_of_val(&*section.map), 8192);
        assert_eq!(section.backing(Gpa((1 << 40) + 511 * GIB)), Some(Backing::None));
        assert_eq!(section.remove_all(), Ok(0));
        assert_eq!(tables(&section), (0, 0));
    }

    #[test]
    fn a_touched_page_costs_the_tables_on_its_way() {
        let section = section(512, 3);

        for offset in [0, PAGE_SIZE, 512 * GIB - 1] {
            section.populate(Gpa((1 << 40) + offset)).unwrap().unwrap();
        }

        assert_eq!(tables(&section), (2, 2));
        let gpas: Vec<u64> = section.backed().map(|(gpa, ..)| gpa.0 - (1 << 40)).collect();
        assert_eq!(gpas, [0, PAGE_SIZE, 512 * GIB - PAGE_SIZE]);
    }
}
