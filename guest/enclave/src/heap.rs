//! Pages that the enclave grows by, of which there may be more than EPC.

use core::ptr;

use crate::leaves;

/// Where they begin, in bytes from the beginning of ELRANGE; they reach to its end.
const FIRST: u64 = 0x10_0000;
const PAGE: u64 = 4096;
/// In each page, its offset in ELRANGE.
const OFFSET: u64 = 0;
/// In each page, the last sweep that came by.
const SWEEP: u64 = PAGE - 8;

/// Some of the pages.
pub(crate) struct Pages {
    base: u64,
    start: u64,
    count: u64,
}

impl Pages {
    /// `count` pages from offset `start` in ELRANGE, which begins at `base` and has `size` bytes.
    pub(crate) fn new(base: u64, size: u64, start: u64, count: u64) -> Option<Self> {
        let end = count.checked_mul(PAGE)?.checked_add(start)?;
        (start >= FIRST && start.is_multiple_of(PAGE) && end <= size).then_some(Self {
            base,
            start,
            count,
        })
    }

    fn offsets(&self) -> impl Iterator<Item = u64> {
        (0..self.count).map(|n| self.start + n * PAGE)
    }

    /// Accepts each page, where none was, and marks it: the number of pages, or EACCEPT's error.
    pub(crate) fn grow(&self) -> Result<u64, u64> {
        for offset in self.offsets() {
            leaves::accept(self.base + offset)?;
            self.write(offset, OFFSET, offset);
            self.write(offset, SWEEP, 0);
        }
        Ok(self.count)
    }

    /// How many pages are as the sweep before this one left them; marks each.
    pub(crate) fn sweep(&self, number: u64) -> u64 {
        let mut unchanged = 0;
        for offset in self.offsets() {
            let found = (self.read(offset, OFFSET), self.read(offset, SWEEP));
            unchanged += u64::from(found == (offset, number - 1));
            self.write(offset, SWEEP, number);
        }
        unchanged
    }

    fn word(&self, offset: u64, at: u64) -> *mut u64 {
        (self.base + offset + at) as *mut u64
    }

    fn read(&self, offset: u64, at: u64) -> u64 {
        // SAFETY: pages from `FIRST` on belong to the enclave, and nothing in Rust lives there.
        unsafe { ptr::read_volatile(self.word(offset, at)) }
    }

    fn write(&self, offset: u64, at: u64, value: u64) {
        // SAFETY: pages from `FIRST` on belong to the enclave, and nothing in Rust lives there.
        unsafe { ptr::write_volatile(self.word(offset, at), value) }
    }
}
