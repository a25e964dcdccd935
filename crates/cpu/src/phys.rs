//! Guest-physical memory as the processor sees it.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use cloister_sgx::EpcIndex;
use cloister_x86::Gpa;
use zerocopy::{FromZeros, KnownLayout};

/// Which 64-byte lines of a page hold code that some processor has decoded.
///
/// A processor that decodes marks the lines first; a processor (or device) that stores looks at
/// them after its store. [`barrier`] makes processors see each other without a fence in every
/// store; a device's thread, which the only processor of a machine does not wait for, passes a
/// fence.
#[derive(Debug, Default, FromZeros, KnownLayout)]
#[repr(C)]
pub struct CodeTrack {
    /// Bit n: line n was decoded since the last change.
    lines: AtomicU64,
    /// Counts changes of decoded lines; blocks decoded under another count are stale.
    generation: AtomicU32,
}

impl CodeTrack {
    /// Offset of the lines, in bytes.
    pub(crate) const LINES: usize = std::mem::offset_of!(Self, lines);
    /// Offset of the generation, in bytes.
    pub(crate) const GENERATION: usize = std::mem::offset_of!(Self, generation);

    /// That of a page of which nothing was decoded.
    pub(crate) const fn new() -> Self {
        Self { lines: AtomicU64::new(0), generation: AtomicU32::new(0) }
    }

    /// The lines that `len` bytes at `offset` touch; `len` is at least 1 and stays in the page.
    #[inline(always)]
    fn mask(offset: usize, len: usize) -> u64 {
        let first = offset >> 6;
        let last = (offset + len - 1) >> 6;
        (u64::MAX >> (63 - (last - first).min(63))) << first
    }

    /// Marks bytes as code that is about to be decoded, and returns the generation that the
    /// decoded code belongs to.
    pub fn mark(&self, offset: usize, len: usize, others: bool) -> u32 {
        let generation = self.generation.load(Ordering::Acquire);
        let mask = Self::mask(offset, len);
        if self.lines.fetch_or(mask, Ordering::SeqCst) & mask != mask && others {
            barrier();
        }
        generation
    }

    /// The current generation.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether any line of the page was decoded.
    #[inline(always)]
    pub(crate) fn holds_code(&self) -> bool {
        self.lines.load(Ordering::Relaxed) != 0
    }

    /// Whether any of these bytes were decoded.
    #[inline(always)]
    pub(crate) fn is_code(&self, offset: usize, len: usize) -> bool {
        let lines = self.lines.load(Ordering::Relaxed);
        lines != 0 && lines & Self::mask(offset, len) != 0
    }

    /// Says that bytes were stored: to be called after the store, by whoever stores (processors
    /// and devices). Drops the code decoded from them on every processor.
    #[inline(always)]
    pub fn stored(&self, offset: usize, len: usize) {
        compiler_fence(Ordering::SeqCst);
        if self.is_code(offset, len) {
            self.code_changed();
        }
    }

    #[cold]
    #[inline(never)]
    fn code_changed(&self) {
        // Counted before, so that who sees no lines any more, and stores unasked, sees after that
        // that its own code is stale; and after, so that a mark that the store of 0 drops carries a
        // generation that has passed. Who sees a new count of changes sees the new generation.
        self.count_change();
        self.lines.store(0, Ordering::SeqCst);
        self.count_change();
    }

    fn count_change(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        CODE_CHANGES.fetch_add(1, Ordering::SeqCst);
    }
}

/// The code tracking of a page of guest memory: a reference without a lifetime.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Tracker(NonNull<CodeTrack>);

impl Tracker {
    /// A reference to `track`.
    ///
    /// # Safety
    ///
    /// `track` points to code tracking that lives for as long as this value or a copy of it is
    /// used. That of a [`PhysMap`] and of the EPC does while the [`Package`](crate::Package) lives,
    /// which every processor keeps.
    #[expect(unsafe_code, reason = "the lifetime is the caller's affair")]
    #[inline(always)]
    pub(crate) const unsafe fn new(track: NonNull<CodeTrack>) -> Self {
        Self(track)
    }

    /// A reference to code tracking that lives for ever.
    pub(crate) const fn of(track: &'static CodeTrack) -> Self {
        Self(NonNull::from_ref(track))
    }
}

impl Deref for Tracker {
    type Target = CodeTrack;

    #[inline(always)]
    fn deref(&self) -> &CodeTrack {
        #[expect(unsafe_code, reason = "the pointer is a reference without a lifetime")]
        // SAFETY: who called `new` vouches for the lifetime; `of` got a static.
        unsafe {
            self.0.as_ref()
        }
    }
}

#[expect(unsafe_code, reason = "the pointer is a reference without a lifetime")]
// SAFETY: it stands for a `&CodeTrack`, which is `Send`: code tracking is made of atomics.
unsafe impl Send for Tracker {}

/// Counts the changes of decoded code in this process: while it stands still, no generation of any
/// page changes.
pub(crate) static CODE_CHANGES: AtomicU32 = AtomicU32::new(1);

/// The count of changes of decoded code.
#[inline(always)]
pub(crate) fn code_changes() -> u32 {
    CODE_CHANGES.load(Ordering::Relaxed)
}

/// Makes every running thread of the process pass a full memory barrier.
fn barrier() {
    crate::mem::host::membarrier();
}

/// Whether this host can run a machine of several processors, which find each other's changes of
/// code by a barrier that the host passes for all of them. To be asked before the machine is made.
///
/// # Errors
///
/// What the host said.
pub fn prepare_barrier() -> io::Result<()> {
    crate::mem::host::register_membarrier()
}

/// A page of guest RAM.
#[derive(Clone, Copy, Debug)]
pub struct RamPage {
    /// The page's 4096 bytes in this process.
    pub host: NonNull<u8>,
    /// The page's code tracking.
    pub track: NonNull<CodeTrack>,
    /// Whether the guest may write it; writes to other pages are dropped.
    pub writable: bool,
}

/// What a guest-physical page is.
#[derive(Clone, Copy, Debug)]
pub enum PhysPage {
    /// Memory.
    Ram(RamPage),
    /// EPC: reached by enclaves and SGX leaves only.
    Epc(EpcIndex),
    /// A page of virtual EPC that is not backed yet.
    EpcUnbacked,
    /// Device registers: every access exits.
    Mmio,
    /// Nothing: reads give all ones, writes are dropped.
    None,
}

/// The guest-physical address space.
///
/// # Safety
///
/// Every pointer in a returned [`RamPage`] is valid for reads and (4096 bytes of `host`) writes by
/// any thread for as long as the map lives, and `host` is aligned to 4096 bytes.
/// A processor keeps such pointers in its TLB; an owner that changes what a page is calls
/// [`Kicker::flush_tlb`](crate::Kicker::flush_tlb) on every processor and waits for it
/// before it lets go of the old page.
#[expect(unsafe_code, reason = "the processor reads and writes guest RAM through these pointers")]
pub unsafe trait PhysMap: Send + Sync {
    /// What the page that holds `gpa` is.
    fn page(&self, gpa: Gpa) -> PhysPage;
}

impl CodeTrack {
    /// `pages` fresh trackers. They cost no memory until they are used.
    #[must_use]
    pub fn array(pages: usize) -> Box<[Self]> {
        <[Self]>::new_box_zeroed_with_elems(pages).unwrap_or_else(|_| Box::default())
    }
}
