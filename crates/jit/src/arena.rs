//! Memory for translated code.
#![expect(unsafe_code, reason = "maps memory, and writes code into it")]

use std::io;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

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
        let file = memfd_create("cloister-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, len as u64)?;
        let map = |protection| {
            // SAFETY: a new mapping, of a file that nobody else has.
            let at =
                unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, &file, 0) }?;
            NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory.into())
        };
        let write: NonNull<u8> = map(ProtFlags::READ | ProtFlags::WRITE)?;
        let run = match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(run) => run,
            Err(error) => {
                // SAFETY: mapped above, and used by nobody.
                unsafe { munmap(write.as_ptr().cast(), len) }?;
                return io::Result::Err(error);
            }
        };
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
        for at in [self.write, self.run] {
            // SAFETY: mapped by `new`; whoever held code of the arena is gone before it.
            let unmapped = unsafe { munmap(at.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok());
        }
    }
}
