//! Virtual EPC of the host: instances of `/dev/sgx_vepc`, whose pages the guest alone uses.

#![expect(unsafe_code, reason = "maps EPC, has the kernel touch it, and asks its driver by ioctl")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::{self, NonNull};

use cloister_x86::PAGE_SIZE;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vmm_sys_util::ioctl::ioctl;

/// The device.
pub(super) const NODE: &str = "/dev/sgx_vepc";
/// SGX_IOC_VEPC_REMOVE_ALL (asm/sgx.h).
pub(super) const REMOVE_ALL: u64 = 0xa404;

/// A section of virtual EPC: pages that the host backs when they are touched, and takes back when this is
/// dropped.
#[derive(Debug)]
pub(super) struct Vepc {
    file: File,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the value, and nothing here accesses its bytes: the kernel does.
unsafe impl Send for Vepc {}
// SAFETY: as above.
unsafe impl Sync for Vepc {}

impl Vepc {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// The host's.
    pub(super) fn open() -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(NODE)
    }

    /// Makes `len` bytes of an instance that was just opened.
    ///
    /// # Errors
    ///
    /// The host's.
    pub(super) fn map(file: File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, which replaces none.
        let base = unsafe { mmap(ptr::null_mut(), len, rights, MapFlags::SHARED, &file, 0) }?;
        // mmap(2) answers with an address or an error.
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { file, base, len })
    }

    /// Where it is mapped.
    pub(super) fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len as u64
    }

    /// Has the host back every page now. `progress` is told how many are, every now and then.
    ///
    /// The kernel touches them, by reading a byte of each: what has no EPC is an error then, and not the end
    /// of the process. Neither MAP_POPULATE nor MADV_POPULATE_READ is for mappings of devices.
    ///
    /// # Errors
    ///
    /// How many pages are backed, and the host's error.
    pub(super) fn populate(&self, mut progress: impl FnMut(u64)) -> Result<(), (u64, io::Error)> {
        const STEP: u64 = 1024;
        let sink = memfd_create("cloister-epc", MemfdFlags::CLOEXEC);
        let sink = sink.map_err(|error| (0, error.into()))?;
        let page = usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX);
        for (done, offset) in (0_u64..).zip((0..self.len).step_by(page)) {
            if done.is_multiple_of(STEP) {
                progress(done);
            }
            // SAFETY: the byte is in the mapping; outside enclaves EPC reads as ones.
            let written = unsafe {
                libc::pwrite(sink.as_raw_fd(), self.base.as_ptr().add(offset).cast(), 1, 0)
            };
            if written != 1 {
                return Err((done, io::Error::last_os_error()));
            }
        }
        Ok(())
    }

    /// Makes every page unused (EREMOVE). Returns how many stay in use: an SECS whose enclave has pages in
    /// another section.
    ///
    /// # Errors
    ///
    /// The host's: a processor is in an enclave.
    pub(super) fn remove_all(&self) -> io::Result<u64> {
        // SAFETY: the request takes no argument.
        let left = unsafe { ioctl(&self.file, REMOVE_ALL) };
        u64::try_from(left).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for Vepc {
    fn drop(&mut self) {
        // SAFETY: the mapping is the value's own, and whoever gave it to KVM has closed the VM.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
