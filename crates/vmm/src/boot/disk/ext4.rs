//! ext2, ext3 and ext4, by the `ext4-view` crate.

use ext4_view::{Ext4 as View, Ext4Error, Metadata};

use super::filesystem::{FileError, FileSystem, Kind, MAX_LINKS, MAX_NAMES};
use super::region::Region;

/// Where the superblock lies, and fields of it.
const SUPERBLOCK: u64 = 1024;
const BLOCKS_COUNT: usize = 0x04;
const LOG_BLOCK_SIZE: usize = 0x18;
const BLOCKS_PER_GROUP: usize = 0x20;
const MAGIC: usize = 0x38;
const REVISION: usize = 0x4c;
const INODE_SIZE: usize = 0x58;
const INCOMPATIBLE: usize = 0x60;
const BLOCKS_COUNT_HIGH: usize = 0x150;
/// More than 32 bits of blocks.
const INCOMPATIBLE_64BIT: u32 = 0x80;
/// Groups of the largest file system that is read: their descriptors are all held in memory.
const MAX_GROUPS: u64 = 1 << 20;
/// The largest directory that is searched.
const MAX_DIRECTORY: u64 = 16 << 20;

/// An ext4 file system.
pub(super) struct Ext4(View);

impl Ext4 {
    /// Whether there is a superblock.
    pub(super) fn is_magic(region: &Region) -> bool {
        region.array(SUPERBLOCK + MAGIC as u64).is_ok_and(|bytes: [u8; 2]| bytes == [0x53, 0xef])
    }

    /// Reads superblock, group descriptors and journal.
    pub(super) fn open(region: &Region) -> Result<Self, FileError> {
        check_superblock(region)?;
        Ok(Self(View::load(Box::new(region.clone())).map_err(damaged)?))
    }

    /// What is at `path`, and the path without symbolic links. Every directory on the way is
    /// judged before it is searched.
    fn resolve(&self, path: &str) -> Result<(String, Metadata), FileError> {
        let mut names: Vec<String> = names(path);
        let mut place = String::new();
        let mut links = 0;
        loop {
            let here = if place.is_empty() { "/" } else { &place };
            let metadata = self.0.symlink_metadata(here).map_err(damaged)?;
            if metadata.is_symlink() {
                links += 1;
                let target = self.0.read_link(here).map_err(damaged)?;
                let target = target.to_str().map_err(|_| FileError::NotFound)?;
                if links > MAX_LINKS || target.len() > MAX_NAMES {
                    return Err(FileError::Damaged(format!("{here} is a link without an end")));
                }
                if target.starts_with('/') {
                    place.clear();
                } else {
                    pop(&mut place);
                }
                names.extend(self::names(target));
                // `names` is a stack; a target of nothing but slashes adds nothing.
            } else if names.is_empty() {
                let here = if place.is_empty() { "/".to_owned() } else { place };
                return Ok((here, metadata));
            } else if !metadata.is_dir() {
                return Err(FileError::NotFound);
            } else if metadata.len() > MAX_DIRECTORY {
                return Err(FileError::Damaged(format!("{here} has {} bytes", metadata.len())));
            }
            match names.pop().as_deref() {
                None => {}
                Some("..") => pop(&mut place),
                Some(name) => {
                    place.push('/');
                    place.push_str(name);
                }
            }
        }
    }
}

/// The names of a path, the last one first, without empty ones and `.`.
fn names(path: &str) -> Vec<String> {
    path.rsplit('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect()
}

/// Goes one directory up; the root is its own parent.
fn pop(place: &mut String) {
    place.truncate(place.rfind('/').unwrap_or(0));
}

/// Refuses what would cost more memory than a file system of this size can be worth.
fn check_superblock(region: &Region) -> Result<(), FileError> {
    let bytes: [u8; 1024] =
        region.array(SUPERBLOCK).map_err(|error| FileError::Damaged(error.to_string()))?;
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let refuse = |what: &str| Err(FileError::Damaged(what.to_owned()));
    let high = match word(INCOMPATIBLE) & INCOMPATIBLE_64BIT {
        0 => 0,
        _ => u64::from(word(BLOCKS_COUNT_HIGH)),
    };
    let blocks = high << 32 | u64::from(word(BLOCKS_COUNT));
    let shift = word(LOG_BLOCK_SIZE);
    if shift > 6 {
        return refuse("its blocks are too large");
    }
    if blocks > region.len() >> (10 + shift) {
        return refuse("it is larger than its partition");
    }
    let per_group = u64::from(word(BLOCKS_PER_GROUP));
    if per_group == 0 || blocks / per_group > MAX_GROUPS {
        return refuse("it has too many block groups");
    }
    let inode = u16::from_le_bytes([bytes[INODE_SIZE], bytes[INODE_SIZE + 1]]);
    if word(REVISION) > 0 && !(128..=4096).contains(&inode) {
        return refuse("its inodes have no size that is known");
    }
    Ok(())
}

fn damaged(error: Ext4Error) -> FileError {
    match error {
        Ext4Error::NotFound => FileError::NotFound,
        error => FileError::Damaged(error.to_string()),
    }
}

impl FileSystem for Ext4 {
    fn name(&self) -> &'static str {
        "ext4"
    }

    fn uuid(&self) -> String {
        self.0.uuid().to_string()
    }

    fn label(&self) -> String {
        self.0.label().to_str().unwrap_or_default().to_owned()
    }

    fn kind(&self, path: &str) -> Result<Kind, FileError> {
        let (_, metadata) = self.resolve(path)?;
        Ok(if metadata.is_dir() { Kind::Directory } else { Kind::File(metadata.len()) })
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FileError> {
        let (path, metadata) = self.resolve(path)?;
        if !metadata.file_type().is_regular_file() {
            return Err(FileError::WrongKind);
        }
        if metadata.len() > limit {
            return Err(FileError::TooLarge { size: metadata.len(), limit });
        }
        self.0.read(path.as_str()).map_err(damaged)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FileError> {
        let (path, metadata) = self.resolve(path)?;
        if !metadata.is_dir() {
            return Err(FileError::WrongKind);
        }
        if metadata.len() > MAX_DIRECTORY {
            return Err(FileError::Damaged(format!("{path} has {} bytes", metadata.len())));
        }
        let mut found = Vec::new();
        for entry in self.0.read_dir(path.as_str()).map_err(damaged)?.take(MAX_NAMES) {
            let entry = entry.map_err(damaged)?;
            if let Ok(name) = entry.file_name().as_str()
                && !matches!(name, "." | "..")
            {
                found.push(name.to_owned());
            }
        }
        Ok(found)
    }
}
