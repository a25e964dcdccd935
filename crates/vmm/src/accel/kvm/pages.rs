//! The pages that KVM shares with the owner of a processor: `kvm_run` and the data of port accesses.

#![expect(unsafe_code, reason = "maps pages that the kernel writes")]

use std::ffi::c_void;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU8;

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of the pages, besides that of the processor's [`VcpuFd`].
#[derive(Debug)]
pub(super) struct RunPages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the value, and any thread may access it: `immediate_exit` by atomic
// accesses, the rest by the rules of `read` and `write`.
unsafe impl Send for RunPages {}
// SAFETY: as above.
unsafe impl Sync for RunPages {}

impl RunPages {
    /// Maps the pages of a processor, `len` bytes (KVM_GET_VCPU_MMAP_SIZE).
    ///
    /// # Errors
    ///
    /// The host's.
    pub(super) fn map(vcpu: &VcpuFd, len: usize) -> Result<Self, Errno> {
        // SAFETY: the descriptor is open as long as `vcpu` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, which replaces none.
        let base = unsafe { mmap(ptr::null_mut(), len, rights, MapFlags::SHARED, fd, 0) }?;
        // mmap(2) answers with an address or an error.
        Ok(Self { base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)?, len })
    }

    /// While it is not 0, KVM_RUN returns at once.
    pub(super) fn immediate_exit(&self) -> &AtomicU8 {
        const AT: usize = offset_of!(kvm_run, immediate_exit);
        const _: () = assert!(AT < size_of::<kvm_run>());
        // SAFETY: a byte of the mapping, which lives as long as the value; the kernel only reads it.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(AT)) }
    }

    /// Copies bytes at `offset`, while the processor does not run. Zeros where there are no such bytes.
    pub(super) fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut data = [0; N];
        self.read_into(offset, &mut data);
        data
    }

    /// As [`RunPages::read`].
    pub(super) fn read_into(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        if self.holds(offset, data.len()) {
            // SAFETY: the bytes are in the mapping, which `data` is not; KVM writes them in KVM_RUN only,
            // which the caller's thread alone calls.
            unsafe {
                ptr::copy_nonoverlapping(
                    self.base.as_ptr().add(offset),
                    data.as_mut_ptr(),
                    data.len(),
                );
            }
        }
    }

    /// Writes bytes at `offset`, while the processor does not run. Nothing where there are no such bytes.
    pub(super) fn write(&self, offset: usize, data: &[u8]) {
        if self.holds(offset, data.len()) {
            // SAFETY: as in `read_into`.
            unsafe {
                ptr::copy_nonoverlapping(data.as_ptr(), self.base.as_ptr().add(offset), data.len());
            }
        }
    }

    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

impl Drop for RunPages {
    fn drop(&mut self) {
        // SAFETY: the mapping is the value's own, and nobody has a pointer into it any more.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
