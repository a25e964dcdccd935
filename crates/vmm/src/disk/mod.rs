//! The disks of a machine: images of the host, which are opened, locked and judged before the sandbox
//! closes. Nothing is opened then because an image's contents say so.

mod error;
mod format;
mod image;
mod lock;
mod qcow2;
mod temporary;
#[cfg(test)]
mod testing;
mod vmdk;

pub use error::DiskError;
pub use format::{ImageFormat, ImageFormatError, probe};
pub use image::{Image, Opened};
pub use qcow2::Qcow2Error;
pub use vmdk::VmdkError;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloister_boot::ReadAt;
use cloister_devices::virtio::{Block, BlockStorage as _};

use self::lock::LockError;
use crate::config::DiskConfig;

/// A disk of a machine. A clone is the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) config: DiskConfig,
    image: Arc<Mutex<Image>>,
    len: u64,
    /// The image's open files.
    files: Vec<RawFd>,
    /// How large a file of its can become.
    largest_file: u64,
    /// Device and inode of the image.
    identity: Option<(u64, u64)>,
}

impl Disk {
    /// Opens and locks all disks of a machine.
    pub(crate) fn open_all(configs: &[DiskConfig]) -> Result<Vec<Self>, DiskError> {
        let mut disks: Vec<Self> = Vec::new();
        for config in configs {
            let disk = Self::open(config, &disks)?;
            disks.push(disk);
        }
        Ok(disks)
    }

    /// Opens a disk of a machine that has opened `others`.
    fn open(config: &DiskConfig, others: &[Self]) -> Result<Self, DiskError> {
        let file = open_file(&config.path, config.is_written())?;
        let identity = file.metadata().map(|file| (file.dev(), file.ino())).ok();
        lock_file(&file, &config.path, !config.is_written()).map_err(|error| match error {
            DiskError::InUse { path, .. }
                if others.iter().any(|other| other.identity == identity) =>
            {
                DiskError::Twice(path)
            }
            error => error,
        })?;
        let Opened { image, files, largest_file } = Image::open(config, file)?;
        let len = image.len();
        Ok(Self {
            config: config.clone(),
            image: Arc::new(Mutex::new(image)),
            len,
            files,
            largest_file,
            identity,
        })
    }

    /// The device of the `index`-th disk.
    pub(crate) fn device(&self, index: usize) -> Block {
        Block::new(self.image.clone(), self.config.readonly, &format!("cloister-{index}"))
    }

    /// The descriptors of its files, the same as long as the machine is there.
    pub(crate) fn descriptors(&self) -> &[RawFd] {
        &self.files
    }

    /// How large a file of its may become, in bytes.
    pub(crate) const fn largest_file(&self) -> u64 {
        self.largest_file
    }

    /// Bytes of the disk.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// What is on the disk, for who boots from it.
    pub(crate) fn reader(&self) -> Arc<dyn ReadAt> {
        Arc::new(Reader(self.image.clone()))
    }

    /// Gives to the host what of the disk only this process knows. It lasts with the host; a flush by the
    /// guest makes it last longer.
    pub(crate) fn write_back(&self) {
        if let Err(error) = lock(&self.image).write_back() {
            let path = self.config.path.display();
            tracing::error!(%path, %error, "the disk image cannot be brought to its end");
        }
    }
}

/// Opens an image's file.
fn open_file(path: &Path, writable: bool) -> Result<File, DiskError> {
    let opened = OpenOptions::new().read(true).write(writable).open(path);
    opened.map_err(|reason| DiskError::Open { path: path.to_owned(), reason, writable })
}

/// Locks an image's file for as long as it is open.
fn lock_file(file: &File, path: &Path, readonly: bool) -> Result<(), DiskError> {
    match lock::lock(file, readonly) {
        Ok(()) => {}
        Err(LockError::InUse) => {
            return Err(DiskError::InUse { path: path.to_owned(), readonly });
        }
        Err(LockError::Unsupported(error)) => {
            tracing::warn!(path = %path.display(), %error, "the disk image cannot be locked");
        }
    }
    Ok(())
}

/// A disk as its boot loader reads it.
struct Reader(Arc<Mutex<Image>>);

impl ReadAt for Reader {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        lock(&self.0).read(offset, buffer)
    }
}

fn lock(image: &Mutex<Image>) -> MutexGuard<'_, Image> {
    image.lock().unwrap_or_else(PoisonError::into_inner)
}
