//! The header of a qcow2 image and its refcount table, as somebody hostile may have written them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use thiserror::Error;

/// "QFI\xfb".
const MAGIC: u32 = 0x5146_49fb;
/// Bytes of a header of version 2, and of version 3 at least.
const V2_LEN: usize = 72;
const V3_LEN: usize = 104;
/// log2 of the sizes that a cluster can have; QEMU's.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Bytes of the largest L1 table, QEMU's (QCOW_MAX_L1_SIZE).
const MAX_L1: u64 = 32 << 20;
/// Bytes of the largest refcount table, QEMU's (QCOW_MAX_REFTABLE_SIZE).
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Bytes of an entry of a table.
const ENTRY: u64 = 8;
/// The smallest disk: one sector.
const MIN_SIZE: u64 = 512;
/// No offset of a cluster has more bits.
const MAX_SIZE: u64 = 1 << 56;

/// Incompatible features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum Qcow2Error {
    /// It is not of this format.
    #[error("it is not a qcow2 image")]
    NotQcow2,
    /// The file cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// Its version is none that is known.
    #[error("it is of version {0}")]
    Version(u32),
    /// Its contents are encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// Its refcounts were not written when it was last closed.
    #[error("it was not closed properly")]
    Dirty,
    /// Somebody found that it is damaged.
    #[error("it is marked as corrupt")]
    Corrupt,
    /// Its contents are in another file.
    #[error("its contents are in another file")]
    DataFile,
    /// It has features that imago does not know, such as zstd's compression.
    #[error("it has features that are not known here (incompatible_features {0:#x})")]
    Features(u64),
    /// There are no refcounts for a part of the file before others, as in an image that was made smaller.
    #[error("its refcount table has gaps")]
    Gaps,
    /// A number in it cannot be.
    #[error("its {0} cannot be")]
    Impossible(&'static str),
    /// imago finds something wrong with it.
    #[error("it is damaged: {0}")]
    Unsound(io::Error),
}

/// What a sound header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Header {
    /// Bytes of a cluster.
    pub(super) cluster: u32,
    /// Bytes of the disk.
    size: u64,
    /// Bytes of the file.
    file: u64,
}

impl Header {
    /// Judges the image in `file`: what it says costs no more memory than tables of 40 MiB, which are in the
    /// file, and allocating a cluster costs no more time than looking through the file's own refcounts.
    pub(in super::super) fn judge(file: &File, writable: bool) -> Result<Self, Qcow2Error> {
        let file_len = file.metadata().map_err(Qcow2Error::Read)?.len();
        let mut bytes = [0; V3_LEN];
        read(file, 0, &mut bytes[..V2_LEN])?;
        let u32_at = |bytes: &[u8; V3_LEN], at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |bytes: &[u8; V3_LEN], at: usize| {
            u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
        };
        if u32_at(&bytes, 0) != MAGIC {
            return Err(Qcow2Error::NotQcow2);
        }
        match u32_at(&bytes, 4) {
            2 => {}
            3 => {
                read(file, 0, &mut bytes)?;
                judge_features(u64_at(&bytes, 72))?;
            }
            version => return Err(Qcow2Error::Version(version)),
        }
        if u32_at(&bytes, 32) != 0 {
            return Err(Qcow2Error::Encrypted);
        }
        let cluster_bits = u32_at(&bytes, 20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Qcow2Error::Impossible("cluster size"));
        }
        let header = Self { cluster: 1 << cluster_bits, size: u64_at(&bytes, 24), file: file_len };
        if !(MIN_SIZE..=MAX_SIZE).contains(&header.size) {
            return Err(Qcow2Error::Impossible("size"));
        }
        let l1_len = u64::from(u32_at(&bytes, 36)) * ENTRY;
        let l1_reach = header.l1_reach();
        let is_enough = l1_len / ENTRY >= header.size.div_ceil(l1_reach);
        if l1_len > MAX_L1 || !is_enough || !header.holds(u64_at(&bytes, 40), l1_len) {
            return Err(Qcow2Error::Impossible("L1 table"));
        }
        if writable {
            let len = u64::from(u32_at(&bytes, 56)) * u64::from(header.cluster);
            header.judge_refcounts(file, u64_at(&bytes, 48), len)?;
        }
        Ok(header)
    }

    /// How large the file may become when all of the disk is written: snapshots in it, and what else is
    /// there, stay.
    pub(super) const fn largest_file(&self) -> u64 {
        self.file.saturating_add(with_metadata(self.size))
    }

    /// Bytes of the disk that an entry of the L1 table is for.
    fn l1_reach(&self) -> u64 {
        u64::from(self.cluster) / ENTRY * u64::from(self.cluster)
    }

    /// Whether a table lies in the file, behind the header, where clusters begin.
    fn holds(&self, offset: u64, len: u64) -> bool {
        offset != 0
            && offset.is_multiple_of(self.cluster.into())
            && offset.checked_add(len).is_some_and(|end| end <= self.file)
    }

    /// Judges the refcount table: each block of refcounts is in the file, and there once, and all are at the table's beginning.
    ///
    /// imago looks for room for a block that is missing before what the block is for, and where that is the file's beginning,
    /// or a guest has freed clusters in the gap, it looks for ever and ends with the stack.
    fn judge_refcounts(&self, file: &File, offset: u64, len: u64) -> Result<(), Qcow2Error> {
        const WRONG: Qcow2Error = Qcow2Error::Impossible("refcount table");
        if len == 0 || len > MAX_REFCOUNT_TABLE || !self.holds(offset, len) {
            return Err(WRONG);
        }
        let mut table = vec![0; usize::try_from(len).map_err(|_| WRONG)?];
        read(file, offset, &mut table)?;
        let (entries, _) = table.as_chunks::<8>();
        let mut blocks: Vec<u64> =
            entries.iter().map(|&entry| u64::from_be_bytes(entry)).filter(|&at| at != 0).collect();
        blocks.sort_unstable();
        let twice = blocks.windows(2).any(|pair| pair[0] == pair[1]);
        // The last cluster of a file may be cut short.
        let inside = |&block: &u64| self.holds(block, 1);
        if twice || !blocks.iter().all(inside) {
            return Err(WRONG);
        }
        let has_gaps = blocks.is_empty() || entries[..blocks.len()].contains(&[0; 8]);
        if has_gaps { Err(Qcow2Error::Gaps) } else { Ok(()) }
    }
}

/// Bytes of an image of a disk of `size`, all of it written: with clusters of 512 bytes, L2 tables and
/// refcounts take an eighth of the disk at most.
pub(super) const fn with_metadata(size: u64) -> u64 {
    size.saturating_add(size / 8)
}

fn judge_features(features: u64) -> Result<(), Qcow2Error> {
    match features {
        0 => Ok(()),
        features if features & CORRUPT != 0 => Err(Qcow2Error::Corrupt),
        DIRTY => Err(Qcow2Error::Dirty),
        DATA_FILE => Err(Qcow2Error::DataFile),
        features => Err(Qcow2Error::Features(features)),
    }
}

fn read(file: &File, offset: u64, buffer: &mut [u8]) -> Result<(), Qcow2Error> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Qcow2Error::NotQcow2,
        _ => Qcow2Error::Read(error),
    })
}

#[cfg(test)]
mod tests;
