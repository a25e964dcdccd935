//! An image under layers of imago's, which reads it as if it were a file with the disk's bytes.
#![expect(unsafe_code, reason = "imago's trait has unsafe methods")]

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use cloister_devices::virtio::BlockStorage as _;
use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;

use super::Vmdk;

/// An image that is only read.
#[derive(Debug)]
pub(in super::super) struct VmdkStorage {
    image: Mutex<Vmdk>,
    size: u64,
    helper: CommonStorageHelper,
}

impl VmdkStorage {
    pub(in super::super) fn new(image: Vmdk) -> Self {
        let size = image.len();
        Self { image: Mutex::new(image), size, helper: CommonStorageHelper::default() }
    }
}

impl fmt::Display for VmdkStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vmdk of {} bytes", self.size)
    }
}

impl Storage for VmdkStorage {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    unsafe fn pure_readv(&self, buffers: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        let mut image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        for mut buffer in buffers.into_inner() {
            // Zeros follow the disk.
            let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let len = buffer.len();
            let (on_disk, after) = buffer.split_at_mut(left.min(len));
            image.read(offset, on_disk)?;
            after.fill(0);
            offset = offset.saturating_add(len as u64);
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, _: IoVector<'_>, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }
}
