//! Where guest memory is in this process.
#![expect(unsafe_code, reason = "guest memory is reached by raw pointers")]

use std::ptr::NonNull;

use super::{Int, Plain, host};
use crate::phys::Tracker;

/// Guest memory in this process, from one byte to the end of its page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageBytes {
    host: NonNull<u8>,
    track: Tracker,
}

impl PageBytes {
    /// The memory from `host` on, whose page has the code tracking `track`.
    ///
    /// # Safety
    ///
    /// The page of 4096 bytes, aligned to as many, in which `host` lies may be read and written by
    /// any thread for as long as this value or a copy of it is used. The memory of a
    /// [`PhysMap`](crate::PhysMap) and of the EPC may while the [`Package`](crate::Package) lives,
    /// which every processor keeps.
    #[inline(always)]
    pub(crate) const unsafe fn new(host: NonNull<u8>, track: Tracker) -> Self {
        Self { host, track }
    }

    /// The first byte.
    #[inline(always)]
    pub(crate) const fn host(self) -> NonNull<u8> {
        self.host
    }

    /// Code tracking of the page.
    #[inline(always)]
    pub(crate) const fn track(self) -> Tracker {
        self.track
    }

    /// The memory of the same page from `offset` (below 4096) on.
    #[inline(always)]
    pub(crate) fn at(self, offset: u64) -> Self {
        let by = (offset & 0xfff) as isize - self.offset() as isize;
        // SAFETY: it stays in the page that whoever made this value vouches for.
        Self { host: unsafe { self.host.offset(by) }, ..self }
    }

    /// Offset of the first byte in its page.
    #[inline(always)]
    pub(crate) fn offset(self) -> usize {
        self.host.addr().get() & 0xfff
    }

    /// Checks that `len` bytes stay in the page.
    #[inline(always)]
    fn check(self, len: usize) {
        assert!(len <= 4096 - self.offset(), "an access ends in its page");
    }

    /// Reads bytes as [`host::load_bytes`] does.
    ///
    /// # Panics
    ///
    /// If they do not stay in the page.
    pub(crate) fn read(self, out: &mut [u8]) {
        self.check(out.len());
        // SAFETY: whoever made this value vouches for the page, and the bytes stay in it.
        unsafe { host::load_bytes(self.host.as_ptr(), out) }
    }

    /// Reads code: bytes in ascending order, in no particular pieces.
    ///
    /// # Panics
    ///
    /// If they do not stay in the page.
    pub(crate) fn read_code(self, out: &mut [u8]) {
        self.check(out.len());
        // SAFETY: whoever made this value vouches for the page, and the bytes stay in it; `out` is
        // memory of this process alone.
        unsafe { host::copy_up(self.host.as_ptr(), out.as_mut_ptr(), out.len()) }
    }

    /// Writes bytes as [`host::store_bytes`] does, and tells the code tracking.
    ///
    /// # Panics
    ///
    /// If they do not stay in the page.
    pub(crate) fn write(self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.check(data.len());
        // SAFETY: whoever made this value vouches for the page, and the bytes stay in it.
        unsafe { host::store_bytes(self.host.as_ptr(), data) }
        self.track.stored(self.offset(), data.len());
    }

    /// Reads a value.
    ///
    /// # Panics
    ///
    /// If it does not stay in the page.
    #[inline(always)]
    pub(crate) fn load<T: Plain>(self) -> T {
        self.check(T::SIZE);
        // SAFETY: whoever made this value vouches for the page, and the bytes stay in it.
        unsafe { host::load(self.host.as_ptr()) }
    }

    /// Writes a value, and tells the code tracking.
    ///
    /// # Panics
    ///
    /// If it does not stay in the page.
    #[inline(always)]
    pub(crate) fn store<T: Plain>(self, value: T) {
        self.check(T::SIZE);
        // SAFETY: whoever made this value vouches for the page, and the bytes stay in it.
        unsafe { host::store(self.host.as_ptr(), value) }
        self.track.stored(self.offset(), T::SIZE);
    }

    /// Replaces a value by `f` of it in one atomic step, tells the code tracking, and returns the
    /// old value; `None` where it is not aligned to its size. `f` may be called more than once.
    ///
    /// # Panics
    ///
    /// If the value does not stay in the page.
    pub(crate) fn update<T: Int>(self, f: impl FnMut(T) -> T) -> Option<T> {
        self.check(T::SIZE);
        // SAFETY: whoever made this value vouches for the page, and the bytes stay in it.
        let old = unsafe { host::update(self.host.as_ptr(), f) }?;
        self.track.stored(self.offset(), T::SIZE);
        Some(old)
    }

    /// CMPXCHG16B in one atomic step, after which the code tracking is told: see
    /// [`host::compare_exchange_16`].
    ///
    /// # Panics
    ///
    /// If the 16 bytes do not stay in the page.
    pub(crate) fn compare_exchange_16(self, expected: u128, new: u128) -> Option<u128> {
        self.check(16);
        // SAFETY: whoever made this value vouches for the page, and the bytes stay in it.
        let old = unsafe { host::compare_exchange_16(self.host.as_ptr(), expected, new) }?;
        self.track.stored(self.offset(), 16);
        Some(old)
    }
}
