//! Blocks, inodes and directories of a file system.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::directory::{self, DirectoryEntry};
use super::inode::Inode;
use super::journal::{self, Replayed};
use super::superblock::{FILETYPE, LARGE_DIR, Superblock, damaged};
use crate::disk::filesystem::FileError;
use crate::disk::region::Region;
use crate::narrow::in_memory;

/// The largest directory that is searched.
const MAX_DIRECTORY: u64 = 16 << 20;
/// Bytes of directories that are kept.
const MAX_KEPT: u64 = 8 << 20;

/// Directories that were read.
#[derive(Default)]
struct Kept {
    directories: BTreeMap<u32, Rc<[DirectoryEntry]>>,
    bytes: u64,
}

/// A file system.
pub(super) struct Volume {
    region: Region,
    pub(super) superblock: Superblock,
    /// Blocks whose newer contents are in the journal.
    replayed: BTreeMap<u64, Replayed>,
    kept: RefCell<Kept>,
}

impl Volume {
    pub(super) fn open(region: &Region) -> Result<Self, FileError> {
        let superblock = Superblock::read(region)?;
        let journal = superblock.journal;
        let mut volume = Self {
            region: region.clone(),
            superblock,
            replayed: BTreeMap::new(),
            kept: RefCell::default(),
        };
        if let Some(inode) = journal {
            volume.replayed = journal::replay(&volume, &volume.inode(inode)?)?;
        }
        Ok(volume)
    }

    /// Fills `bytes` from a block on, whose contents may be in the journal.
    pub(super) fn read_blocks(&self, first: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let size = self.superblock.block;
        if self.replayed.is_empty() {
            return self.read_at(first, bytes);
        }
        for (number, part) in (first..).zip(bytes.chunks_mut(in_memory(size))) {
            match self.replayed.get(&number) {
                Some(copy) => {
                    self.read_at(copy.block, part)?;
                    if copy.escaped {
                        journal::unescape(part);
                    }
                }
                None => self.read_at(number, part)?,
            }
        }
        Ok(())
    }

    fn read_at(&self, block: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let at = block
            .checked_mul(self.superblock.block)
            .filter(|_| block < self.superblock.blocks)
            .ok_or_else(|| damaged("a file has blocks outside it"))?;
        self.region.read_at(at, bytes).map_err(|error| damaged(&error.to_string()))
    }

    /// A whole block.
    pub(super) fn block(&self, number: u64) -> Result<Vec<u8>, FileError> {
        let mut bytes = vec![0; in_memory(self.superblock.block)];
        self.read_blocks(number, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from an offset of the file system on; they lie in one block.
    fn within_block(&self, at: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let size = self.superblock.block;
        let block = self.block(at / size)?;
        let start = in_memory(at % size);
        let part = start.checked_add(bytes.len()).and_then(|end| block.get(start..end));
        bytes.copy_from_slice(part.ok_or_else(|| damaged("its tables cross blocks"))?);
        Ok(())
    }

    /// An inode by its number.
    pub(super) fn inode(&self, number: u32) -> Result<Inode, FileError> {
        let superblock = &self.superblock;
        let index = number.checked_sub(1).filter(|_| number <= superblock.inodes);
        let index = index.ok_or_else(|| FileError::Damaged(format!("it has no inode {number}")))?;
        let group = u64::from(index / superblock.inodes_per_group);
        let index = u64::from(index % superblock.inodes_per_group);
        let nowhere = || damaged("its tables are outside it");

        let mut descriptor = [0; 64];
        let len = in_memory(superblock.descriptor).min(descriptor.len());
        let at = superblock.descriptor_at(group).ok_or_else(nowhere)?;
        self.within_block(at, &mut descriptor[..len])?;
        let word = |at: usize| {
            let bytes =
                [descriptor[at], descriptor[at + 1], descriptor[at + 2], descriptor[at + 3]];
            u64::from(u32::from_le_bytes(bytes))
        };
        let table = word(0x28) << 32 | word(0x8);

        let size = u64::from(superblock.inode_size);
        let at = table.checked_mul(superblock.block).and_then(|at| at.checked_add(index * size));
        let mut bytes = [0; 128];
        self.within_block(at.ok_or_else(nowhere)?, &mut bytes)?;
        Ok(Inode::parse(number, &bytes, superblock.features & LARGE_DIR != 0))
    }

    /// The bytes of a file, a directory or a link, at most `limit`.
    pub(super) fn read(&self, inode: &Inode, limit: u64) -> Result<Vec<u8>, FileError> {
        if inode.size > limit {
            return Err(FileError::TooLarge { size: inode.size, limit });
        }
        if let Some(target) = inode.short_target() {
            return Ok(target.to_vec());
        }
        inode.refuse_unreadable()?;
        let block = self.superblock.block;
        let mut bytes = vec![0; in_memory(inode.size)];
        for run in inode.runs(self)? {
            let start = u64::from(run.logical).saturating_mul(block).min(inode.size);
            let len = u64::from(run.len).saturating_mul(block).min(inode.size - start);
            if let Some(part) = bytes.get_mut(in_memory(start)..in_memory(start + len))
                && !part.is_empty()
            {
                self.read_blocks(run.start, part)?;
            }
        }
        Ok(bytes)
    }

    /// What a directory holds.
    pub(super) fn entries(&self, inode: &Inode) -> Result<Rc<[DirectoryEntry]>, FileError> {
        if let Some(known) = self.kept.borrow().directories.get(&inode.number) {
            return Ok(known.clone());
        }
        let bytes = self.read(inode, MAX_DIRECTORY)?;
        let has_types = self.superblock.features & FILETYPE != 0;
        let block = in_memory(self.superblock.block);
        let entries: Rc<[DirectoryEntry]> = directory::entries(&bytes, block, has_types).into();
        let mut kept = self.kept.borrow_mut();
        if kept.bytes + inode.size <= MAX_KEPT {
            kept.bytes += inode.size;
            kept.directories.insert(inode.number, entries.clone());
        }
        Ok(entries)
    }

    /// The inode of a name in a directory. Each name is looked at: the tree of hashes that large
    /// directories have besides lies in what looks like empty entries.
    pub(super) fn lookup(&self, directory: &Inode, name: &str) -> Result<Option<u32>, FileError> {
        let entries = self.entries(directory)?;
        Ok(entries.iter().find(|entry| entry.name == name).map(|entry| entry.inode))
    }
}
