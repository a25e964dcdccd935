//! Memory for translated code.
#![expect(unsafe_code, reason = "maps memory, and writes code into it")]

use std::io;
use std::ptr::NonNull;

use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap_anonymous, mprotect, mremap, munmap,
};

/// A mapping that goes away unless it is kept.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn keep(self) -> io::Result<NonNull<u8>> {
        let at = NonNull::new(self.at).ok_or(io::ErrorKind::OutOfMemory)?;
        std::mem::forget(self);
        Ok(at)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: whoever made the mapping has not kept it.
        let unmapped = unsafe { munmap(self.at.cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// A piece of memory that is mapped twice: once to write code, once to run it. So no page is ever
/// writable and executable, and nothing has to be mapped later, when the thread may no longer map
/// executable memory.
#[derive(Debug)]
pub(crate) struct Arena {
    write: NonNull<u8>,
    run: NonNull<u8>,
    len: usize,
    used: usize,
}

// SAFETY: the memory is the arena's alone.
unsafe impl Send for Arena {}

impl Arena {
    /// Room for `len` bytes of code, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// The host has no memory, or does not allow executable mappings.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping.
        let write = unsafe { mmap_anonymous(std::ptr::null_mut(), len, writable, flags) }?;
        let first = Mapping { at: write.cast(), len };
        // Of what is shared, an old size of 0 makes another mapping (mremap(2)).
        // SAFETY: a new mapping, of pages that nobody else has.
        let run = unsafe { mremap(write, 0, len, MremapFlags::MAYMOVE) }?;
        let second = Mapping { at: run.cast(), len };
        // SAFETY: nothing is written by this mapping.
        unsafe { mprotect(run, len, MprotectFlags::READ | MprotectFlags::EXEC) }?;
        let (write, run) = (first.keep()?, second.keep()?);
        Ok(Self { write, run, len, used: 0 })
    }

    /// Where the next code will run.
    pub(crate) fn next(&self) -> u64 {
        self.run.as_ptr().addr() as u64 + self.used as u64
    }

    /// Appends code that was made for [`Arena::next`]: where it runs, or `None` if there is no room.
    pub(crate) fn append(&mut self, code: &[u8]) -> Option<NonNull<u8>> {
        if self.len - self.used < code.len() {
            return None;
        }
        // SAFETY: there is room for the code, which is not in the arena.
        let at = unsafe {
            self.write.as_ptr().add(self.used).copy_from_nonoverlapping(code.as_ptr(), code.len());
            self.run.add(self.used)
        };
        self.used = (self.used + code.len()).next_multiple_of(16).min(self.len);
        Some(at)
    }

    /// Bytes in use.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Forgets all code from `used` on.
    pub(crate) fn truncate(&mut self, used: usize) {
        self.used = used;
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Whoever held code of the arena is gone before it.
        for at in [self.write, self.run] {
            drop(Mapping { at: at.as_ptr(), len: self.len });
        }
    }
}
