//! The Enclave Page Cache: the page store (SDM Vol. 3D, 34.5).
//!
//! The store is allocated in chunks of 2 MiB on first touch, so an EPC far larger than the host's
//! memory costs only its chunk table until enclaves use it.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use zerocopy::{FromBytes, FromZeros};

/// Bytes in an EPC page.
pub const EPC_PAGE_SIZE: usize = 4096;

/// Quadwords in an EPC page.
const PAGE_WORDS: usize = EPC_PAGE_SIZE / 8;

/// Pages in one lazily allocated chunk of the store (2 MiB of EPC).
pub(crate) const CHUNK_PAGES: usize = 512;

/// Index of an EPC page within its [`Platform`](crate::Platform): the model's physical address of
/// that page. Sections follow each other without gaps in this space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EpcIndex(pub u32);

impl fmt::Debug for EpcIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpcIndex({:#x})", self.0)
    }
}

/// The 4 KiB of one EPC page, as 512 little-endian quadwords that several logical processors may
/// access at once.
///
/// A page lives as long as the [`Platform`](crate::Platform) and never moves, so a processor may
/// keep its address in a TLB. It is aligned as pages are: an address in it has the offset of the
/// byte in its low 12 bits, and what is aligned for the guest is aligned for the host.
#[derive(Clone, Copy)]
pub struct EpcPage<'a> {
    /// The page's quadwords, in address order, each in little-endian byte order.
    pub words: &'a [AtomicU64; PAGE_WORDS],
}

impl EpcPage<'_> {
    /// The quadword at byte `offset`, which is taken modulo the page and rounded down to 8.
    #[must_use]
    #[inline]
    pub fn load(self, offset: usize) -> u64 {
        u64::from_le(self.words[(offset % EPC_PAGE_SIZE) / 8].load(Ordering::Relaxed))
    }

    /// Stores the quadword at byte `offset`, which is taken modulo the page and rounded down to 8.
    #[inline]
    pub fn store(self, offset: usize, value: u64) {
        self.words[(offset % EPC_PAGE_SIZE) / 8].store(value.to_le(), Ordering::Relaxed);
    }

    /// Copies `buf.len()` bytes from byte `offset` of the page.
    ///
    /// # Panics
    /// If the range leaves the page.
    pub fn read(self, offset: usize, buf: &mut [u8]) {
        assert!(offset <= EPC_PAGE_SIZE && buf.len() <= EPC_PAGE_SIZE - offset);
        let (head, whole) = buf.split_at_mut((offset.wrapping_neg() % 8).min(buf.len()));
        let (quads, tail) = whole.as_chunks_mut::<8>();
        let first = offset.div_ceil(8);
        let end = first + quads.len();
        self.read_part(offset, head);
        for (quad, word) in quads.iter_mut().zip(&self.words[first..end]) {
            *quad = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        self.read_part(end * 8, tail);
    }

    /// Copies bytes that lie in one quadword.
    fn read_part(self, offset: usize, buf: &mut [u8]) {
        if !buf.is_empty() {
            let word = self.words[offset / 8].load(Ordering::Relaxed).to_ne_bytes();
            buf.copy_from_slice(&word[offset % 8..][..buf.len()]);
        }
    }

    /// Copies `bytes` to byte `offset` of the page. Bytes beside the range are never disturbed,
    /// even when another logical processor writes them at the same time.
    ///
    /// # Panics
    /// If the range leaves the page.
    pub fn write(self, offset: usize, bytes: &[u8]) {
        assert!(offset <= EPC_PAGE_SIZE && bytes.len() <= EPC_PAGE_SIZE - offset);
        let (head, whole) = bytes.split_at((offset.wrapping_neg() % 8).min(bytes.len()));
        let (quads, tail) = whole.as_chunks::<8>();
        let first = offset.div_ceil(8);
        let end = first + quads.len();
        self.write_part(offset, head);
        for (quad, word) in quads.iter().zip(&self.words[first..end]) {
            word.store(u64::from_ne_bytes(*quad), Ordering::Relaxed);
        }
        self.write_part(end * 8, tail);
    }

    /// Copies bytes into one quadword, merged with what the others hold at that moment.
    fn write_part(self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let cell = &self.words[offset / 8];
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                let mut word = old.to_ne_bytes();
                word[offset % 8..][..bytes.len()].copy_from_slice(bytes);
                Some(u64::from_ne_bytes(word))
            });
        }
    }

    /// The whole page as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; EPC_PAGE_SIZE] {
        let mut bytes = [0; EPC_PAGE_SIZE];
        self.read(0, &mut bytes);
        bytes
    }

    /// Fills the page with zeros.
    pub fn clear(self) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for EpcPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpcPage").finish_non_exhaustive()
    }
}

/// A chunk of the page store: room for [`CHUNK_PAGES`] pages from the first page boundary on.
///
/// The boundary is found rather than asked for with the type's alignment: for an alignment over
/// 16 bytes std clears the memory itself, and a chunk would be resident as a whole as soon as one
/// page of it is used. Zeroed memory that is not aligned comes from the system untouched.
#[derive(FromBytes)]
pub(crate) struct PageChunk {
    words: [AtomicU64; (CHUNK_PAGES + 1) * PAGE_WORDS],
}

impl PageChunk {
    fn page(&self, number: usize) -> EpcPage<'_> {
        let boundary = (self.words.as_ptr().addr().wrapping_neg() % EPC_PAGE_SIZE) / 8;
        let (pages, _) = self.words[boundary..].as_chunks();
        EpcPage { words: &pages[number] }
    }
}

/// Zero-initialised memory for a number of EPC pages, in chunks `C` of [`CHUNK_PAGES`] pages that
/// are allocated on first touch.
pub(crate) struct Lazy<C> {
    chunks: Box<[OnceLock<Box<C>>]>,
    len: u32,
}

/// What each EPC page has of something: entry `i` of a chunk is that of page `i`.
pub(crate) type LazyTable<T> = Lazy<[T; CHUNK_PAGES]>;

/// The bytes of the pages.
pub(crate) type PageStore = Lazy<PageChunk>;

impl<C: FromZeros> Lazy<C> {
    /// Memory for `len` pages, none of which is backed yet.
    pub(crate) fn new(len: u32) -> Self {
        let chunks = (len as usize).div_ceil(CHUNK_PAGES);
        Self { chunks: (0..chunks).map(|_| OnceLock::new()).collect(), len }
    }

    /// The chunk of page `index`, which is backed if need be, and the page's place in it.
    ///
    /// # Panics
    /// If there is no such page.
    #[inline]
    fn chunk(&self, index: EpcIndex) -> (&C, usize) {
        assert!(index.0 < self.len, "EPC index {} outside the platform's EPC", index.0);
        let (chunk, place) = (index.0 as usize / CHUNK_PAGES, index.0 as usize % CHUNK_PAGES);
        (self.chunks[chunk].get_or_init(Self::allocate), place)
    }

    /// Number of chunks that are backed by host memory.
    pub(crate) fn backed_chunks(&self) -> usize {
        self.chunks.iter().filter(|chunk| chunk.get().is_some()).count()
    }

    #[cold]
    fn allocate() -> Box<C> {
        // For these std asks the system for zeroed memory (see `PageChunk`).
        const { assert!(align_of::<C>() <= 16) };
        match C::new_box_zeroed() {
            Ok(chunk) => chunk,
            Err(zerocopy::AllocError) => {
                std::alloc::handle_alloc_error(core::alloc::Layout::new::<C>())
            }
        }
    }
}

impl<T: FromZeros> LazyTable<T> {
    /// The entry of page `index`, backing its chunk if need be.
    ///
    /// # Panics
    /// If there is no such page.
    #[inline]
    pub(crate) fn get(&self, index: EpcIndex) -> &T {
        let (chunk, place) = self.chunk(index);
        &chunk[place]
    }

    /// The entry of page `index` if its chunk was ever touched.
    pub(crate) fn peek(&self, index: EpcIndex) -> Option<&T> {
        let chunk = self.chunks.get(index.0 as usize / CHUNK_PAGES)?.get()?;
        chunk.get(index.0 as usize % CHUNK_PAGES)
    }
}

impl PageStore {
    /// Page `index`, backing its chunk if need be.
    ///
    /// # Panics
    /// If there is no such page.
    #[inline]
    pub(crate) fn page(&self, index: EpcIndex) -> EpcPage<'_> {
        let (chunk, place) = self.chunk(index);
        chunk.page(place)
    }
}
