//! The Enclave Page Cache Map (SDM Vol. 3D, 34.5.1 and 35.19) and its per-page locks.
//!
//! An entry is 32 bytes. What an entry needs only for an SECS page (children, threads inside,
//! tracking epoch) shares the words that other page types use for their own.
//!
//! Locks follow the concurrency tables of SDM Vol. 3D, 38.1.6.1: shared or exclusive access to a
//! page, and three kinds of exclusive access among families of leaves. All are try-locks: a
//! conflict is an outcome of the leaf that meets it, never a wait.
//!
//! A processor that enters counts itself in and then looks at its SSA pages; one that blocks,
//! restricts or changes a page marks the page and then looks at who is inside. One of the two must
//! see the other, so both words are accessed in the sequentially consistent order.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use bitflags::bitflags;
use zerocopy::FromBytes;

use crate::epc::EpcIndex;

/// Page types, as in `SECINFO.FLAGS.PAGE_TYPE` (SDM Vol. 3D, 35.11.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PageType {
    /// PT_SECS: an SGX Enclave Control Structure.
    Secs = 0,
    /// PT_TCS: a Thread Control Structure.
    Tcs = 1,
    /// PT_REG: a regular page.
    Reg = 2,
    /// PT_VA: a version array.
    Va = 3,
    /// PT_TRIM: a trimmed page.
    Trim = 4,
    /// PT_SS_FIRST: the first page of a shadow stack.
    SsFirst = 5,
    /// PT_SS_REST: any other page of a shadow stack.
    SsRest = 6,
}

impl PageType {
    /// The page type that `value` encodes, if it is one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Secs,
            1 => Self::Tcs,
            2 => Self::Reg,
            3 => Self::Va,
            4 => Self::Trim,
            5 => Self::SsFirst,
            6 => Self::SsRest,
            _ => return None,
        })
    }
}

bitflags! {
    /// The flag bits of an EPCM entry (SDM Vol. 3D, table 35-27).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
    pub struct EpcmFlags: u32 {
        /// Enclave accesses may read the page.
        const R = 1 << 0;
        /// Enclave accesses may write the page.
        const W = 1 << 1;
        /// The enclave may execute from the page.
        const X = 1 << 2;
        /// PENDING: added by EAUG and not yet accepted.
        const PENDING = 1 << 3;
        /// MODIFIED: its type was changed by EMODT and not yet accepted.
        const MODIFIED = 1 << 4;
        /// PR: its permissions were restricted by EMODPR and not yet accepted.
        const PR = 1 << 5;
        /// BLOCKED: no new translations may be made.
        const BLOCKED = 1 << 6;
        /// VALID: the entry describes a page in use.
        const VALID = 1 << 7;
    }
}

/// What an EPCM entry said at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpcmView {
    /// VALID, R, W, X, PENDING, MODIFIED, PR and BLOCKED.
    pub flags: EpcmFlags,
    /// PT. Meaningless unless VALID.
    pub page_type: PageType,
    /// ENCLAVESECS: the SECS of the enclave that owns the page; the page itself for an SECS.
    pub secs: EpcIndex,
    /// ENCLAVEADDRESS; 0 for SECS and VA pages.
    pub address: u64,
}

impl EpcmView {
    /// A page that is not in use.
    pub(crate) const UNUSED: Self = Self {
        flags: EpcmFlags::empty(),
        page_type: PageType::Secs,
        secs: EpcIndex(0),
        address: 0,
    };

    /// Whether the entry is VALID.
    #[must_use]
    pub const fn valid(&self) -> bool {
        self.flags.contains(EpcmFlags::VALID)
    }

    /// Whether the entry is VALID and of type `page_type`.
    #[must_use]
    pub fn is(&self, page_type: PageType) -> bool {
        self.valid() && self.page_type == page_type
    }
}

/// One entry of the EPCM.
#[derive(FromBytes)]
#[repr(C)]
pub(crate) struct EpcmEntry {
    /// Try-locks: shared holders in bits 15:0, an SECS's evictions in bits 27:16, the exclusive
    /// bits above.
    lock: AtomicU32,
    /// [`EpcmFlags`] in bits 7:0, PT in bits 15:8, and in bits 31:16 a count of the times that
    /// the entry was made valid, which tells a reader that the entry changed under it.
    state: AtomicU32,
    /// ENCLAVESECS.
    secs: AtomicU32,
    /// SECS: number of its child pages in the EPC.
    children: AtomicU32,
    /// ENCLAVEADDRESS.
    address: AtomicU64,
    /// SECS: [`Tracking`]. Other pages: the epoch of their SECS in which they were last
    /// blocked, restricted or changed.
    tracking: AtomicU64,
}

const LOCK_SHARED_MASK: u32 = 0xffff;
/// SECS: EWBs of its pages, which ETRACK and ETRACKC must not overtake.
const TRACKED_ONE: u32 = 1 << 16;
const TRACKED_MASK: u32 = 0xfff << 16;
const LOCK_EXCLUSIVE: u32 = 1 << 31;

/// A family of leaves that exclude each other on one page (SDM Vol. 3D, table 38-7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Family {
    /// EACCEPT, EACCEPTCOPY, EMODPE, EMODPR and EMODT on their target.
    Modify = 1 << 28,
    /// EADD, EEXTEND and EINIT on the SECS.
    Measure = 1 << 29,
    /// ETRACK and ETRACKC on the SECS.
    Track = 1 << 30,
}

/// A held try-lock; dropping it releases the page.
#[derive(Debug)]
pub(crate) struct Lock<'a> {
    word: &'a AtomicU32,
    held: u32,
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        self.word.fetch_sub(self.held, Ordering::Release);
    }
}

impl EpcmEntry {
    /// Shared access to the page, unless someone has exclusive access.
    pub(crate) fn try_shared(&self) -> Option<Lock<'_>> {
        self.acquire(1, |word| {
            word & LOCK_EXCLUSIVE == 0 && word & LOCK_SHARED_MASK != LOCK_SHARED_MASK
        })
    }

    /// Exclusive access to the page, unless someone has shared or exclusive access.
    pub(crate) fn try_exclusive(&self) -> Option<Lock<'_>> {
        let lock =
            self.acquire(LOCK_EXCLUSIVE, |word| word & (LOCK_EXCLUSIVE | LOCK_SHARED_MASK) == 0);
        // Who sees what the holder writes into the page sees as well that the entry was not VALID.
        fence(Ordering::Release);
        lock
    }

    /// Exclusive access among the leaves of `family` only.
    pub(crate) fn try_family(&self, family: Family) -> Option<Lock<'_>> {
        let others = match family {
            Family::Track => TRACKED_MASK,
            Family::Modify | Family::Measure => 0,
        };
        self.acquire(family as u32, |word| word & (family as u32 | others) == 0)
    }

    /// SECS: keeps the tracking state as it is while a page is evicted by it. Evictions do not
    /// exclude each other, but all exclude the leaves of [`Family::Track`].
    pub(crate) fn try_tracked(&self) -> Option<Lock<'_>> {
        self.acquire(TRACKED_ONE, |word| {
            word & Family::Track as u32 == 0 && word & TRACKED_MASK != TRACKED_MASK
        })
    }

    fn acquire(&self, held: u32, free: impl Fn(u32) -> bool) -> Option<Lock<'_>> {
        self.lock
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| {
                free(word).then(|| word + held)
            })
            .ok()
            .map(|_| Lock { word: &self.lock, held })
    }

    /// What the entry says now. An entry that is being replaced meanwhile reads as not VALID.
    pub(crate) fn view(&self) -> EpcmView {
        // Each retry means that some other processor got on; four of them in a row is as good as an
        // unused entry.
        self.unchanged(|| ()).map_or(EpcmView::UNUSED, |(view, ())| view)
    }

    /// What the entry says, and what `read` finds of the page and of its entry while it says that.
    /// `None` if the entry changed in each of four tries.
    pub(crate) fn unchanged<T>(&self, read: impl Fn() -> T) -> Option<(EpcmView, T)> {
        // Whoever replaces an entry clears VALID first and counts up when setting it, so equal
        // states around the other reads mean that these belong together.
        (0..4).find_map(|_| {
            let state = self.state.load(Ordering::SeqCst);
            let secs = EpcIndex(self.secs.load(Ordering::Acquire));
            let address = self.address.load(Ordering::Acquire);
            let found = read();
            // Pairs with the fence of an exclusive holder.
            fence(Ordering::Acquire);
            if self.state.load(Ordering::Acquire) != state {
                return None;
            }
            let flags = EpcmFlags::from_bits_truncate(state & 0xff);
            let page_type = PageType::from_u8((state >> 8) as u8).unwrap_or(PageType::Secs);
            Some((EpcmView { flags, page_type, secs, address }, found))
        })
    }

    /// Makes the entry VALID with these contents. The caller has exclusive access and found the
    /// entry not VALID.
    pub(crate) fn install(&self, view: EpcmView) {
        self.secs.store(view.secs.0, Ordering::Release);
        self.address.store(view.address, Ordering::Release);
        self.children.store(0, Ordering::Relaxed);
        self.tracking.store(0, Ordering::Relaxed);
        let version = (self.state.load(Ordering::Relaxed) >> 16).wrapping_add(1) << 16;
        let flags = view.flags | EpcmFlags::VALID;
        self.state.store(
            version | u32::from(view.page_type as u8) << 8 | flags.bits(),
            Ordering::Release,
        );
    }

    /// Clears VALID. The caller has exclusive access.
    pub(crate) fn invalidate(&self) {
        self.state.fetch_and(!0xffff, Ordering::AcqRel);
    }

    /// Sets and clears flag bits and, where given, changes the page type, in one step. Returns
    /// the flags that were set before.
    pub(crate) fn modify(
        &self,
        set: EpcmFlags,
        clear: EpcmFlags,
        page_type: Option<PageType>,
    ) -> EpcmFlags {
        let changed = self.state.fetch_update(Ordering::SeqCst, Ordering::Acquire, |state| {
            let mut state = (state & !clear.bits()) | set.bits();
            if let Some(page_type) = page_type {
                state = state & !0xff00 | u32::from(page_type as u8) << 8;
            }
            Some(state)
        });
        let (Ok(before) | Err(before)) = changed;
        EpcmFlags::from_bits_truncate(before & 0xff)
    }

    /// SECS: number of child pages in the EPC.
    pub(crate) fn children(&self) -> u32 {
        self.children.load(Ordering::Acquire)
    }

    /// SECS: one more child page. The caller has shared access to the SECS.
    pub(crate) fn add_child(&self) {
        self.children.fetch_add(1, Ordering::AcqRel);
    }

    /// SECS: one child page fewer.
    pub(crate) fn remove_child(&self) {
        self.children.fetch_sub(1, Ordering::AcqRel);
    }

    /// SECS: the tracking word.
    pub(crate) fn tracking(&self) -> Tracking {
        Tracking(self.tracking.load(Ordering::SeqCst))
    }

    /// SECS: replaces the tracking word by what `change` makes of it; `None` leaves it alone.
    pub(crate) fn update_tracking(
        &self,
        change: impl Fn(Tracking) -> Option<Tracking>,
    ) -> Option<Tracking> {
        self.tracking
            .fetch_update(Ordering::SeqCst, Ordering::Acquire, |word| {
                change(Tracking(word)).map(|new| new.0)
            })
            .ok()
            .map(Tracking)
    }

    /// Any other page: the epoch of its SECS in which it was last blocked, restricted or changed.
    pub(crate) fn tracked_epoch(&self) -> u32 {
        self.tracking.load(Ordering::Acquire) as u32
    }

    /// Any other page: notes the epoch of its SECS in which it was blocked, restricted or changed.
    pub(crate) fn set_tracked_epoch(&self, epoch: u32) {
        self.tracking.store(u64::from(epoch), Ordering::Release);
    }
}

/// Who is inside an enclave, as ETRACK and EREMOVE need to know it (SDM Vol. 3D, 36.5.3): the
/// epoch, the logical processors that entered in it, those that entered before it and are still
/// inside, and the removals under way that forbid entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tracking(u64);

const EPOCH_BITS: u64 = 0xffff_ffff;
const CURRENT_ONE: u64 = 1 << 32;
const CURRENT_MASK: u64 = 0xfff << 32;
const PREVIOUS_ONE: u64 = 1 << 44;
const PREVIOUS_MASK: u64 = 0xfff << 44;
const REMOVAL_ONE: u64 = 1 << 56;
const REMOVAL_MASK: u64 = 0xff << 56;

impl Tracking {
    /// The current epoch.
    pub(crate) const fn epoch(self) -> u32 {
        self.0 as u32
    }

    /// Logical processors inside that entered in an earlier epoch.
    pub(crate) const fn previous(self) -> u32 {
        ((self.0 & PREVIOUS_MASK) >> 44) as u32
    }

    /// All logical processors inside.
    pub(crate) const fn inside(self) -> u32 {
        ((self.0 & CURRENT_MASK) >> 32) as u32 + self.previous()
    }

    /// One more logical processor inside, unless a removal is under way.
    pub(crate) const fn entered(self) -> Option<Self> {
        if self.0 & REMOVAL_MASK != 0 || self.0 & CURRENT_MASK == CURRENT_MASK {
            return None;
        }
        Some(Self(self.0 + CURRENT_ONE))
    }

    /// One logical processor fewer, which had entered in `epoch`.
    pub(crate) const fn left(self, epoch: u32) -> Option<Self> {
        if epoch == self.epoch() && self.0 & CURRENT_MASK != 0 {
            Some(Self(self.0 - CURRENT_ONE))
        } else if self.0 & PREVIOUS_MASK != 0 {
            Some(Self(self.0 - PREVIOUS_ONE))
        } else {
            None
        }
    }

    /// Entry forbidden for as long as a page is removed; `None` while a processor is inside.
    pub(crate) const fn removal_begun(self) -> Option<Self> {
        if self.inside() != 0 || self.0 & REMOVAL_MASK == REMOVAL_MASK {
            return None;
        }
        Some(Self(self.0 + REMOVAL_ONE))
    }

    /// Entry allowed again.
    pub(crate) const fn removal_ended(self) -> Option<Self> {
        Some(Self(self.0 - REMOVAL_ONE))
    }

    /// A new epoch; `None` while the previous one is not finished.
    pub(crate) const fn next_epoch(self) -> Option<Self> {
        if self.previous() != 0 {
            return None;
        }
        let current = (self.0 & CURRENT_MASK) >> 32;
        let epoch = (self.0 & EPOCH_BITS).wrapping_add(1) & EPOCH_BITS;
        Some(Self(self.0 & REMOVAL_MASK | current << 44 | epoch))
    }

    /// Whether every processor that was inside when a page was blocked, in epoch `blocked`, has
    /// left since.
    pub(crate) const fn tracked(self, blocked: u32) -> bool {
        match self.epoch().wrapping_sub(blocked) {
            0 => false,
            1 => self.previous() == 0,
            _ => true,
        }
    }
}
