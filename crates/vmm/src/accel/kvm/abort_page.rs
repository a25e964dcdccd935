//! What is in the place of EPC for a processor without SGX: memory that reads as ones and takes no writes
//! (SDM Vol. 3D, 35.3, abort page semantics).

#![expect(unsafe_code, reason = "maps memory")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, write};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::accel::Translators;
use crate::layout::Layout;

/// How often the same pages are mapped at most: a process has 65,530 mappings in all.
const MAPPINGS: usize = 1024;
/// The least that is mapped at a time.
const PART: usize = 2 << 20;
/// Ones, a part of a write.
static ONES: [u8; 1 << 16] = [0xff; 1 << 16];

/// What stands in for SGX that the host does not have. It is made before the process is confined, and outlives the
/// machine's boots.
#[derive(Debug)]
pub struct StandIn {
    translators: Translators,
    /// A guest-physical address, and what is there.
    sections: Vec<(u64, AbortPages)>,
}

impl StandIn {
    /// For the sections of `layout`, with translators for the enclaves.
    ///
    /// # Errors
    ///
    /// The host's.
    pub(in crate::accel) fn new(translators: Translators, layout: &Layout) -> io::Result<Self> {
        let sections = layout.epc().iter().map(|range| {
            let pages = AbortPages::map(range.end - range.start)?;
            Ok((range.start, pages))
        });
        Ok(Self { translators, sections: sections.collect::<io::Result<_>>()? })
    }

    /// Translators for the enclaves.
    pub(in crate::accel) const fn translators(&self) -> &Translators {
        &self.translators
    }

    /// Its sections: guest-physical address, host address and size in bytes.
    pub(super) fn regions(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let region = |(gpa, pages): &(u64, AbortPages)| (*gpa, pages.address(), pages.len as u64);
        self.sections.iter().map(region)
    }
}

/// A range of such memory: the same pages again and again.
#[derive(Debug)]
pub(super) struct AbortPages {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to the value, and nothing here accesses its bytes.
unsafe impl Send for AbortPages {}
// SAFETY: as above.
unsafe impl Sync for AbortPages {}

impl AbortPages {
    /// `len` bytes.
    ///
    /// # Errors
    ///
    /// The host's.
    pub(super) fn map(len: u64) -> Result<Self, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        let part = len.div_ceil(MAPPINGS).next_multiple_of(PART);
        let file = ones(part.min(len))?;
        // SAFETY: a new mapping, which replaces none.
        let base =
            unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let pages = Self { base: NonNull::new(base).ok_or(Errno::NOMEM)?, len };
        for at in (0..len).step_by(part) {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: within the mapping just made, which nobody knows yet.
            unsafe {
                let place = pages.base.as_ptr().cast::<u8>().add(at).cast();
                mmap(place, part.min(len - at), ProtFlags::READ, flags, file.as_fd(), 0)?;
            }
        }
        Ok(pages)
    }

    /// Where it is mapped.
    pub(super) fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }
}

/// A file of ones.
fn ones(len: usize) -> Result<OwnedFd, Errno> {
    let file = memfd_create("cloister-abort-page", MemfdFlags::CLOEXEC)?;
    let mut left = len;
    while left != 0 {
        left -= write(&file, &ONES[..left.min(ONES.len())])?;
    }
    Ok(file)
}

impl Drop for AbortPages {
    fn drop(&mut self) {
        // SAFETY: the mapping is the value's own, and whoever gave it to KVM has closed the VM.
        let unmapped = unsafe { munmap(self.base.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_ones() {
        let pages = AbortPages::map((5 << 20) + 4096).unwrap();

        // SAFETY: as many bytes are mapped, and nobody writes them.
        let bytes =
            unsafe { std::slice::from_raw_parts(pages.base.as_ptr().cast::<u8>(), pages.len) };
        assert!(bytes.iter().all(|&byte| byte == 0xff));
    }
}
