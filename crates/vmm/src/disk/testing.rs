//! What the tests of formats have in common: changes of a disk, and the same of plain bytes.

use std::fs::File;
use std::io;

use cloister_devices::virtio::BlockStorage;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

pub(super) const SECTOR: u64 = 512;

/// An empty file.
pub(super) fn memory() -> File {
    File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap())
}

/// All bytes of a disk.
pub(super) fn contents(disk: &mut impl BlockStorage) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

/// What is done with a disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Write(u8),
    Discard,
    Zero {
        unmap: bool,
    },
    Flush,
    /// The tests' own.
    Reopen,
}

/// Changes of these kinds in a disk of `size` bytes: what, from where on and of how many bytes.
pub(super) fn changes(
    kind: impl Strategy<Value = Change>,
    size: u64,
) -> impl Strategy<Value = Vec<(Change, u64, u64)>> {
    let sectors = size / SECTOR;
    let change = (kind, 0..sectors, 1..400_u64).prop_map(move |(kind, start, len)| {
        (kind, start * SECTOR, len.min(sectors - start) * SECTOR)
    });
    prop::collection::vec(change, 1..60)
}

/// Makes a change, and the same in `plain` if the disk takes it.
pub(super) fn change_both(
    disk: &mut impl BlockStorage,
    plain: &mut [u8],
    (change, offset, len): (Change, u64, u64),
) -> io::Result<()> {
    let byte = match change {
        Change::Write(byte) => {
            disk.write(offset, &vec![byte; len as usize])?;
            byte
        }
        Change::Discard => {
            disk.discard(offset, len)?;
            0
        }
        Change::Zero { unmap } => {
            disk.write_zeroes(offset, len, unmap)?;
            0
        }
        Change::Flush => return disk.flush(),
        Change::Reopen => return Ok(()),
    };
    plain[offset as usize..(offset + len) as usize].fill(byte);
    Ok(())
}
