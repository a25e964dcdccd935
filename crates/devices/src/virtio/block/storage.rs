//! What a disk's bytes are kept in.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{BlockError, SECTOR};

/// What a disk's bytes are kept in.
///
/// Offsets and lengths are in bytes, whole sectors of 512, and inside [`BlockStorage::len`]: the device
/// judges what its driver says. A call is one piece of a request, so that none is long: reads and writes are of 64 KiB
/// at most, zeros of 16 MiB, discards of 256 MiB.
#[expect(clippy::len_without_is_empty, reason = "no disk is empty")]
pub trait BlockStorage: Send {
    /// Bytes of the disk. They never change.
    fn len(&self) -> u64;

    /// What the range of a discard is best aligned to, in bytes.
    fn discard_alignment(&self) -> u32;

    /// Fills `data` from `offset` on.
    ///
    /// # Errors
    /// The host's.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes `data` from `offset` on.
    ///
    /// # Errors
    /// The host's.
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes all that was written last, whatever happens to this process or its host.
    ///
    /// # Errors
    /// The host's.
    fn flush(&mut self) -> io::Result<()>;

    /// What is in the range is needed no more: its storage may be given up.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where nothing can be given up; else the host's.
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the range read as zeros without writing them; its storage may be given up if `unmap`.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where zeros have to be written; else the host's.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

impl std::fmt::Debug for dyn BlockStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockStorage")
    }
}

/// A file, or a disk of the host, that holds a disk's bytes as they are.
#[derive(Debug)]
pub struct RawFile {
    file: Arc<File>,
    len: u64,
}

impl RawFile {
    /// What `file` holds: a regular file or a block device, open for writing too if the disk is written.
    ///
    /// # Errors
    /// The file is not a disk.
    pub fn new(file: impl Into<Arc<File>>) -> Result<Self, BlockError> {
        let file = file.into();
        let kind = file.metadata().map_err(BlockError::Metadata)?.file_type();
        // A character device has an end too, at which it starts.
        if !kind.is_file() && !kind.is_block_device() {
            return Err(BlockError::NoSize);
        }
        // The metadata of a block device tell no size; its end does.
        let len = (&*file).seek(SeekFrom::End(0)).map_err(|_| BlockError::NoSize)?;
        if len < SECTOR { Err(BlockError::TooSmall(len)) } else { Ok(Self { file, len }) }
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        // Not all that is not supported has this kind for the standard library.
        fallocate(&*self.file, flags | FallocateFlags::KEEP_SIZE, offset, len).map_err(|error| {
            match error {
                Errno::OPNOTSUPP | Errno::NOSYS => io::ErrorKind::Unsupported.into(),
                error => error.into(),
            }
        })
    }
}

impl BlockStorage for RawFile {
    fn len(&self) -> u64 {
        self.len
    }

    // The block of most file systems.
    fn discard_alignment(&self) -> u32 {
        4096
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(FallocateFlags::PUNCH_HOLE, offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let how = if unmap { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        self.fallocate(how, offset, len)
    }
}
