//! Memory for translated code.
#![expect(unsafe_code, reason = "maps memory, and writes code into it")]

use std::io;
use std::ptr::NonNull;

use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap_anonymous, mprotect, mremap_fixed, munmap,
};

use crate::links::Link;

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
/// executable memory. Behind what runs are the [`Link`]s, which code reaches relative to itself and
/// writes.
#[derive(Debug)]
pub(crate) struct Arena {
    write: NonNull<u8>,
    run: NonNull<u8>,
    len: usize,
    used: usize,
    links: usize,
    links_used: usize,
    /// Links that were ever in use: what noted one's place before [`Arena::truncate`] may still write it.
    links_touched: usize,
}

// SAFETY: the memory is the arena's alone.
unsafe impl Send for Arena {}

impl Arena {
    /// Room for `len` bytes of code, a multiple of the page size, and for `links` links that fill pages.
    ///
    /// # Errors
    ///
    /// The host has no memory, or does not allow executable mappings.
    pub(crate) fn new(len: usize, links: usize) -> io::Result<Self> {
        let all = len + links * size_of::<Link>();
        let flags = MapFlags::NORESERVE;
        let writable = ProtFlags::READ | ProtFlags::WRITE;
        let nowhere = std::ptr::null_mut();
        // SAFETY: a new mapping.
        let write = unsafe { mmap_anonymous(nowhere, len, writable, flags | MapFlags::SHARED) }?;
        let first = Mapping { at: write.cast(), len };
        // SAFETY: a new mapping.
        let run = unsafe { mmap_anonymous(nowhere, all, writable, flags | MapFlags::PRIVATE) }?;
        let second = Mapping { at: run.cast(), len: all };
        // Of what is shared, an old size of 0 makes another mapping (mremap(2)).
        // SAFETY: it replaces a part of a mapping that nobody else has.
        unsafe { mremap_fixed(write, 0, len, MremapFlags::MAYMOVE, run) }?;
        // SAFETY: nothing is written by this mapping.
        unsafe { mprotect(run, len, MprotectFlags::READ | MprotectFlags::EXEC) }?;
        let (write, run) = (first.keep()?, second.keep()?);
        Ok(Self { write, run, len, used: 0, links, links_used: 0, links_touched: 0 })
    }

    fn start(&self) -> u64 {
        self.run.as_ptr().addr() as u64
    }

    /// Where the next code will run.
    pub(crate) fn next(&self) -> u64 {
        self.start() + self.used as u64
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

    /// Makes the jump whose rel32 is at `site`, of code that was appended, lead to `target`.
    ///
    /// # Panics
    ///
    /// If no code was appended there.
    pub(crate) fn redirect(&mut self, site: u64, target: u64) {
        let offset = site.wrapping_sub(self.start()) as usize;
        assert!(offset.saturating_add(4) <= self.used, "a jump of the arena");
        let distance = target.wrapping_sub(site + 4) as i32;
        // SAFETY: the four bytes are in the arena.
        unsafe { self.write.as_ptr().add(offset).cast::<i32>().write_unaligned(distance) };
    }

    /// Where the links begin.
    pub(crate) fn links(&self) -> u64 {
        self.start() + self.len as u64
    }

    /// Takes a link that leads nowhere: its number.
    pub(crate) fn take_link(&mut self) -> Option<u32> {
        let number = self.links_used;
        (number < self.links).then(|| {
            self.links_used += 1;
            self.links_touched = self.links_touched.max(self.links_used);
            number as u32
        })
    }

    /// Bytes of code that there is room for, and links.
    pub(crate) const fn room(&self) -> (usize, usize) {
        (self.len - self.used, self.links - self.links_used)
    }

    /// Bytes and links in use.
    pub(crate) const fn used(&self) -> (usize, usize) {
        (self.used, self.links_used)
    }

    /// Forgets all code and links from [`Arena::used`] on. No link leads anywhere any more.
    pub(crate) fn truncate(&mut self, used: (usize, usize)) {
        let bytes = self.links_touched * size_of::<Link>();
        // SAFETY: the links are there, and zeros are links.
        unsafe { self.run.as_ptr().add(self.len).write_bytes(0, bytes) };
        (self.used, self.links_used) = used;
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Whoever held code of the arena is gone before it.
        let all = self.len + self.links * size_of::<Link>();
        drop(Mapping { at: self.write.as_ptr(), len: self.len });
        drop(Mapping { at: self.run.as_ptr(), len: all });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_survives_that_was_written_by_what_remembers_its_place() {
        let mut arena = Arena::new(4096, 128).expect("memory");
        let links: Vec<_> = (0..3).map(|_| arena.take_link()).collect();
        assert_eq!(links, [Some(0), Some(1), Some(2)]);
        arena.truncate((0, 1));
        // SAFETY: the links are the arena's, and nobody else uses them.
        let last = unsafe { &mut *(arena.links() as *mut Link).add(2) };
        (last.la, last.key, last.code) = (1, 2, 3);
        arena.truncate((0, 1));
        assert_eq!((last.la, last.key, last.code), (0, 0, 0));
    }
}
