//! The journal of a file system that was not unmounted (Linux, jbd2): blocks whose newest contents
//! are in it. The log is not written back. What fast commits add to it is not read.

use std::collections::BTreeMap;

use super::inode::{Inode, Run};
use super::superblock::damaged;
use super::volume::Volume;
use crate::disk::filesystem::FileError;

/// Begins every block that describes others.
const MAGIC: u32 = 0xc03b_3998;
/// Kinds of them.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCKS: [u32; 2] = [3, 4];
const REVOKE: u32 = 5;
/// Features of the journal.
const WITH_64BIT: u32 = 0x2;
const CHECKSUM_2: u32 = 0x8;
const CHECKSUM_3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
/// Blocks at its end for fast commits, where their number is not told.
const FAST_COMMIT_BLOCKS: u32 = 256;
/// Flags of a block in it.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
/// Blocks of the longest journal that is read.
const MAX_BLOCKS: u32 = 1 << 20;

/// Where the contents of a block are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Replayed {
    pub(super) block: u64,
    /// It begins with [`MAGIC`], of which the copy has zeros.
    pub(super) escaped: bool,
    sequence: u32,
}

/// Puts back what a copy does not have.
pub(super) fn unescape(block: &mut [u8]) {
    if let Some(start) = block.first_chunk_mut() {
        *start = MAGIC.to_be_bytes();
    }
}

/// The blocks that complete transactions have written.
pub(super) fn replay(volume: &Volume, inode: &Inode) -> Result<BTreeMap<u64, Replayed>, FileError> {
    let mut log = Log::open(volume, inode)?;
    let mut found = BTreeMap::new();
    // Transactions up to which a block's copies do not count.
    let mut revoked: BTreeMap<u64, u32> = BTreeMap::new();
    let mut open = Transaction::default();
    while let Some((kind, block)) = log.next()? {
        match kind {
            DESCRIPTOR => open.blocks.extend(log.described(&block)?),
            REVOKE => open.revoked.extend(log.revoked(&block)),
            COMMIT => {
                let done = std::mem::take(&mut open);
                found.extend(done.blocks);
                revoked.extend(done.revoked.into_iter().map(|block| (block, log.sequence)));
                log.sequence = log.sequence.wrapping_add(1);
            }
            _ => break,
        }
    }
    found.retain(|block, copy: &mut Replayed| {
        // Numbers of transactions begin again after the largest.
        let newer = |last: &u32| copy.sequence.wrapping_sub(*last).cast_signed() > 0;
        revoked.get(block).is_none_or(newer)
    });
    Ok(found)
}

/// What a transaction does once it is complete.
#[derive(Default)]
struct Transaction {
    blocks: Vec<(u64, Replayed)>,
    revoked: Vec<u64>,
}

/// The journal as it is read.
struct Log<'a> {
    volume: &'a Volume,
    runs: Vec<Run>,
    features: u32,
    /// The first block of the log, which goes round, and the one after its last.
    first: u32,
    end: u32,
    at: u32,
    /// Blocks that may still be read.
    left: u32,
    /// The running transaction.
    sequence: u32,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

impl<'a> Log<'a> {
    fn open(volume: &'a Volume, inode: &Inode) -> Result<Self, FileError> {
        let mut log = Self {
            volume,
            runs: inode.runs(volume)?,
            features: 0,
            first: 0,
            end: 0,
            at: 0,
            left: 0,
            sequence: 0,
        };
        let head = log.block(0)?;
        let word = |at: usize| word(&head, at).unwrap_or(0);
        let fits = word(0) == MAGIC
            && SUPERBLOCKS.contains(&word(4))
            && u64::from(word(0xc)) == volume.superblock.block;
        if !fits {
            return Err(damaged("its journal is none"));
        }
        // The first version has no features.
        log.features = if word(4) == SUPERBLOCKS[1] { word(0x28) } else { 0 };
        let fast = match (log.features & FAST_COMMIT, word(0x54)) {
            (0, _) => 0,
            (_, 0) => FAST_COMMIT_BLOCKS,
            (_, blocks) => blocks,
        };
        log.end = word(0x10).min(MAX_BLOCKS).saturating_sub(fast);
        (log.first, log.sequence, log.at) = (word(0x14), word(0x18), word(0x1c));
        // Without a start there is nothing in it.
        log.left = if log.at == 0 || log.first == 0 || log.at >= log.end { 0 } else { log.end };
        Ok(log)
    }

    /// Where a block of the journal is.
    fn place(&self, number: u32) -> Result<u64, FileError> {
        let after = self.runs.partition_point(|run| run.logical <= number);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        let place = run.and_then(|run| {
            let offset = number.checked_sub(run.logical).filter(|offset| *offset < run.len)?;
            run.start.checked_add(offset.into())
        });
        place.ok_or_else(|| damaged("its journal has holes"))
    }

    fn block(&self, number: u32) -> Result<Vec<u8>, FileError> {
        self.volume.block(self.place(number)?)
    }

    /// Goes on by one block, and returns the one before.
    fn step(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at = if at + 1 >= self.end { self.first } else { at + 1 };
        Some(at)
    }

    /// The next block of the running transaction that says what others are, and its kind.
    fn next(&mut self) -> Result<Option<(u32, Vec<u8>)>, FileError> {
        let Some(at) = self.step() else { return Ok(None) };
        let block = self.block(at)?;
        let head = (word(&block, 0), word(&block, 4), word(&block, 8));
        Ok(match head {
            (Some(MAGIC), Some(kind), Some(sequence)) if sequence == self.sequence => {
                Some((kind, block))
            }
            _ => None,
        })
    }

    /// The blocks that follow a descriptor, and those that they are copies of.
    fn described(&mut self, block: &[u8]) -> Result<Vec<(u64, Replayed)>, FileError> {
        let mut found = Vec::new();
        let mut rest = block.get(12..).unwrap_or_default();
        while let Some((number, flags, len)) = self.tag(rest) {
            let Some(at) = self.step() else { break };
            let copy = Replayed {
                block: self.place(at)?,
                escaped: flags & ESCAPED != 0,
                sequence: self.sequence,
            };
            found.push((number, copy));
            let uuid = if flags & SAME_UUID == 0 { 16 } else { 0 };
            rest = rest.get(len + uuid..).unwrap_or_default();
            if flags & LAST != 0 {
                break;
            }
        }
        Ok(found)
    }

    /// The block number and the flags at the start of some bytes, and how many they take.
    fn tag(&self, bytes: &[u8]) -> Option<(u64, u32, usize)> {
        let is_long = self.features & WITH_64BIT != 0;
        let low = u64::from(word(bytes, 0)?);
        if self.features & CHECKSUM_3 != 0 {
            let high = if is_long { u64::from(word(bytes, 8)?) } else { 0 };
            return Some((high << 32 | low, word(bytes, 4)?, 16)).filter(|_| bytes.len() >= 16);
        }
        let high = if is_long { u64::from(word(bytes, 8)?) } else { 0 };
        let checksum = if self.features & CHECKSUM_2 != 0 { 2 } else { 0 };
        let len = if is_long { 12 } else { 8 } + checksum;
        Some((high << 32 | low, word(bytes, 4)? & 0xffff, len))
    }

    /// The blocks whose copies in this and in earlier transactions do not count.
    fn revoked(&self, block: &[u8]) -> Vec<u64> {
        let used = word(block, 12).map_or(0, |used| used as usize).min(block.len());
        let bytes = block.get(16..used).unwrap_or_default();
        if self.features & WITH_64BIT != 0 {
            bytes.as_chunks().0.iter().map(|number| u64::from_be_bytes(*number)).collect()
        } else {
            bytes.as_chunks().0.iter().map(|number| u32::from_be_bytes(*number).into()).collect()
        }
    }
}
