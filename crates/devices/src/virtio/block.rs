//! virtio-blk (virtio 1.2, section 5.2).

mod request;
mod storage;

pub use storage::{BlockStorage, RawFile};

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_ID_BYTES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::device::{DeviceFault, VirtioDevice};
use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;

/// The unit of requests, whatever the disk's block size.
const SECTOR: u64 = BLOCK_SIZE as u64;
/// The block size that a driver is told.
const BLOCK_SIZE: u32 = 512;
const QUEUE_SIZE: u16 = 256;
/// All descriptors of a chain but those of header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Ranges in one discard or write-zeroes request.
const MAX_RANGES: u32 = 16;
/// Sectors of one range to discard: 2 GiB.
const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// Sectors of one range to write zeros to: 16 MiB, since a host file may have no quick way.
const MAX_ZERO_SECTORS: u32 = 1 << 15;
/// Bytes of a hole that are punched at a time: the host may have to free as many blocks.
const PUNCH: u64 = 256 << 20;
/// Bytes that are copied at a time between file and guest.
const PIECE: usize = 64 << 10;

const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;
const DISCARD: u64 = 1 << VIRTIO_BLK_F_DISCARD;
const WRITE_ZEROES: u64 = 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// Why a file cannot be a disk.
#[derive(Debug, Error)]
pub enum BlockError {
    /// The host does not say what the file is.
    #[error("Cannot look at the disk image")]
    Metadata(#[source] io::Error),
    /// Its size cannot be told: a directory, a pipe, a terminal, /dev/zero.
    #[error("The disk image has no size: it is neither a file nor a block device")]
    NoSize,
    /// It holds not even one sector.
    #[error("The disk image has {0} bytes, less than one sector of {SECTOR}")]
    TooSmall(u64),
}

/// A disk.
#[derive(Debug)]
pub struct Block {
    storage: Arc<Mutex<dyn BlockStorage>>,
    read_only: bool,
    sectors: u64,
    id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    config: [u8; 60],
    /// The driver flushes by itself. If not, each write has to last at once.
    driver_flushes: bool,
    piece: Box<[u8]>,
}

impl Block {
    /// A disk with what `storage` holds. A part of a sector at its end is left out. `id` is what the guest
    /// sees as the disk's serial number, of which 20 bytes count.
    #[must_use]
    pub fn new(storage: Arc<Mutex<dyn BlockStorage>>, read_only: bool, id: &str) -> Self {
        let mut id_bytes = [0; VIRTIO_BLK_ID_BYTES as usize];
        for (to, from) in id_bytes.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let (sectors, alignment) = {
            let storage = lock(&storage);
            (storage.len() / SECTOR, storage.discard_alignment())
        };
        Self {
            storage,
            read_only,
            sectors,
            id: id_bytes,
            config: configuration(sectors, alignment),
            driver_flushes: false,
            piece: vec![0; PIECE].into_boxed_slice(),
        }
    }

    /// A disk on a file that holds its bytes, open for writing too unless the disk is read-only.
    ///
    /// # Errors
    /// The file is not a disk.
    pub fn from_file(
        file: impl Into<Arc<File>>,
        read_only: bool,
        id: &str,
    ) -> Result<Self, BlockError> {
        Ok(Self::new(Arc::new(Mutex::new(RawFile::new(file)?)), read_only, id))
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The configuration space (virtio 1.2, section 5.2.4). Discards are best aligned to `alignment` bytes.
fn configuration(sectors: u64, alignment: u32) -> [u8; 60] {
    let mut config = [0; 60];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &sectors.to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &BLOCK_SIZE.to_le_bytes());
    put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &MAX_RANGES.to_le_bytes());
    put(44, &alignment.div_ceil(BLOCK_SIZE).to_le_bytes());
    put(48, &MAX_ZERO_SECTORS.to_le_bytes());
    put(52, &MAX_RANGES.to_le_bytes());
    // Writing zeros may free the range.
    put(56, &[1]);
    config
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let common = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | FLUSH;
        common | if self.read_only { 1 << VIRTIO_BLK_F_RO } else { DISCARD | WRITE_ZEROES }
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, features: u64) {
        self.driver_flushes = features & FLUSH != 0;
    }

    fn serve(
        &mut self,
        _index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        while let Some(chain) = queue.pop(ram)? {
            let written = self.handle(&chain, ram)?;
            queue.complete(ram, &chain, written)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.driver_flushes = false;
    }
}

#[cfg(test)]
mod tests;
