//! Inodes, and where the blocks of a file are.

use super::superblock::damaged;
use super::volume::Volume;
use crate::disk::filesystem::FileError;
use crate::narrow::in_32_bits;

/// Flags.
const COMPRESSED: u32 = 0x4;
const ENCRYPTED: u32 = 0x800;
const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;

/// Begins a node of the tree of extents.
const NODE_MAGIC: u16 = 0xf30a;
/// Bytes of its head and of its entries.
const NODE_ENTRY: usize = 12;
/// Levels below the root.
const MAX_LEVELS: u16 = 5;
/// Nodes of a tree, and extents of a file: those of the largest kernel in the smallest pieces.
const MAX_NODES: u32 = 1 << 14;
const MAX_RUNS: usize = 1 << 20;
/// An extent of more blocks than this has been allocated, and is still empty.
const MAX_WRITTEN: u16 = 1 << 15;
/// Numbers of blocks in the inode itself, before those of blocks of numbers.
const DIRECT: u32 = 12;

/// What an inode is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    File,
    Directory,
    Link,
    Other,
}

/// An inode.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) kind: Type,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) modified: u32,
    flags: u32,
    /// Numbers of blocks, the root of the tree of extents, or the target of a link.
    block: [u8; 60],
}

/// Blocks of a file that are one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// The first one's number in the file.
    pub(super) logical: u32,
    pub(super) len: u32,
    /// The first one's number in the file system.
    pub(super) start: u64,
}

impl Inode {
    pub(super) fn parse(number: u32, bytes: &[u8; 128], large_directories: bool) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let kind = match half(0) >> 12 {
            0x8 => Type::File,
            0x4 => Type::Directory,
            0xa => Type::Link,
            _ => Type::Other,
        };
        // Of other inodes the field is of something else.
        let is_long = kind == Type::File || (kind == Type::Directory && large_directories);
        let high = if is_long { u64::from(word(0x6c)) } else { 0 };
        let mut block = [0; 60];
        block.copy_from_slice(&bytes[0x28..0x64]);
        Self {
            number,
            kind,
            size: high << 32 | u64::from(word(0x4)),
            modified: word(0x10),
            flags: word(0x20),
            block,
        }
    }

    /// The target of a link that is in the inode itself.
    pub(super) fn short_target(&self) -> Option<&[u8]> {
        let is_short = self.kind == Type::Link && self.flags & EXTENTS == 0;
        let len = usize::try_from(self.size).ok().filter(|_| is_short)?;
        self.block.get(..len).filter(|_| len < self.block.len())
    }

    /// Refuses contents that are not in blocks as they are.
    pub(super) fn refuse_unreadable(&self) -> Result<(), FileError> {
        let features =
            [(COMPRESSED, "compression"), (ENCRYPTED, "encrypt"), (INLINE, "inline_data")];
        match features.into_iter().find(|(flag, _)| self.flags & flag != 0) {
            Some((_, name)) => Err(FileError::Unsupported(name.to_owned())),
            None => Ok(()),
        }
    }

    /// Where its blocks are. What is in none reads as zeros.
    pub(super) fn runs(&self, volume: &Volume) -> Result<Vec<Run>, FileError> {
        let blocks = self.size.div_ceil(volume.superblock.block);
        let blocks = u32::try_from(blocks).map_err(|_| damaged("a file has too many blocks"))?;
        let mut runs = Runs { volume, blocks, found: Vec::new(), end: 0, nodes: 0 };
        if self.flags & EXTENTS != 0 {
            runs.extents(&self.block, MAX_LEVELS + 1)?;
        } else {
            runs.mapped(&self.block)?;
        }
        Ok(runs.found)
    }
}

/// The search for a file's blocks.
struct Runs<'a> {
    volume: &'a Volume,
    /// Blocks of the file.
    blocks: u32,
    found: Vec<Run>,
    /// The first block after those that were found.
    end: u32,
    nodes: u32,
}

impl Runs<'_> {
    fn add(&mut self, run: Run) -> Result<(), FileError> {
        if run.logical >= self.blocks || run.len == 0 {
            return Ok(());
        }
        if self.found.len() >= MAX_RUNS {
            return Err(damaged("a file is in too many pieces"));
        }
        // One after the other, so that reading them takes no longer than the file is.
        if run.logical < self.end {
            return Err(damaged("a file's pieces overlap"));
        }
        self.end = run.logical.saturating_add(run.len);
        match self.found.last_mut() {
            Some(last)
                if last.logical.checked_add(last.len) == Some(run.logical)
                    && last.start.checked_add(last.len.into()) == Some(run.start)
                    && last.len.checked_add(run.len).is_some() =>
            {
                last.len += run.len;
            }
            _ => self.found.push(run),
        }
        Ok(())
    }

    fn node(&mut self, number: u64) -> Result<Vec<u8>, FileError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(damaged("a file is in too many pieces"));
        }
        self.volume.block(number)
    }

    /// The extents of a node that has fewer levels below it than `levels`.
    fn extents(&mut self, node: &[u8], levels: u16) -> Result<(), FileError> {
        let half = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |bytes: &[u8], at: usize| {
            u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
        };
        let mut entries = node.chunks_exact(NODE_ENTRY);
        let head = entries.next().filter(|head| half(head, 0) == NODE_MAGIC);
        let head = head.ok_or_else(|| damaged("a tree of extents has a node that is none"))?;
        let (count, depth) = (usize::from(half(head, 2)), half(head, 6));
        if depth >= levels {
            return Err(damaged("a tree of extents is too deep"));
        }
        for entry in entries.take(count) {
            let logical = word(entry, 0);
            if depth > 0 {
                let child = u64::from(half(entry, 8)) << 32 | u64::from(word(entry, 4));
                let child = self.node(child)?;
                self.extents(&child, depth)?;
                continue;
            }
            let len = half(entry, 4);
            let start = u64::from(half(entry, 6)) << 32 | u64::from(word(entry, 8));
            if len <= MAX_WRITTEN {
                self.add(Run { logical, len: len.into(), start })?;
            }
        }
        Ok(())
    }

    /// The blocks by their numbers: of ext2 and ext3.
    fn mapped(&mut self, block: &[u8; 60]) -> Result<(), FileError> {
        let per_block = in_32_bits(self.volume.superblock.block / 4);
        let mut logical = 0;
        for (index, number) in (0..).zip(numbers(block)) {
            // Blocks that one number stands for: itself, or those below one, two or three levels.
            let levels = if index < DIRECT { 0 } else { index - DIRECT + 1 };
            self.mapped_below(number, levels, logical)?;
            logical =
                match per_block.checked_pow(levels).and_then(|below| below.checked_add(logical)) {
                    Some(next) if next < self.blocks => next,
                    _ => break,
                };
        }
        Ok(())
    }

    fn mapped_below(&mut self, number: u32, levels: u32, logical: u32) -> Result<(), FileError> {
        if number == 0 || logical >= self.blocks {
            return Ok(());
        }
        if levels == 0 {
            return self.add(Run { logical, len: 1, start: number.into() });
        }
        let node = self.node(number.into())?;
        let below = in_32_bits(node.len() as u64 / 4).saturating_pow(levels - 1);
        for (index, number) in (0_u32..).zip(numbers(&node)) {
            let next = index.checked_mul(below).and_then(|offset| offset.checked_add(logical));
            let Some(next) = next.filter(|next| *next < self.blocks) else { break };
            self.mapped_below(number, levels - 1, next)?;
        }
        Ok(())
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number))
}
