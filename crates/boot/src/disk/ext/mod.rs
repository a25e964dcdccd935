//! ext2, ext3 and ext4, read only (Linux, Documentation/filesystems/ext4).
//!
//! By hand: the crate for it, `ext4-view`, refuses what GRUB reads (mmp, large_dir, meta_bg, file
//! systems without filetype and of revision 0, inodes of 128 bytes with checksums). It is what the
//! tests compare with. Checksums are not looked at, as GRUB does not: a file system that Linux has
//! still to repair boots.

mod directory;
mod inode;
mod journal;
mod superblock;
mod volume;

use super::filesystem::{Entry, FileError, FileSystem, Kind, MAX_LINKS, MAX_NAMES};
use super::region::Region;
use inode::{Inode, Type};
use superblock::Superblock;
use volume::Volume;

/// The root directory's inode.
const ROOT: u32 = 2;
/// The longest target of a symbolic link.
const MAX_TARGET: u64 = 4096;

/// An ext2, ext3 or ext4 file system.
pub(super) struct Ext(Volume);

impl Ext {
    /// Whether there is a superblock.
    pub(super) fn is_magic(region: &Region) -> bool {
        Superblock::is_magic(region)
    }

    /// Reads the superblock, and the journal if it was not played back.
    ///
    /// # Errors
    ///
    /// [`FileError`] for numbers that contradict each other, and for features that change how files
    /// are found or read.
    pub(super) fn open(region: &Region) -> Result<Self, FileError> {
        Volume::open(region).map(Self)
    }

    /// The inode of `path`; of a symbolic link itself where `follow` is false. A link's target is
    /// relative to its directory, which is why directories are kept on the way.
    fn find(&self, path: &str, follow: bool) -> Result<Inode, FileError> {
        let mut names: Vec<String> = stack(path);
        let mut way = vec![self.0.inode(ROOT)?];
        let mut links = 0;
        while let Some(name) = names.pop() {
            let Some(directory) = way.last() else { return Err(FileError::NotFound) };
            if directory.kind != Type::Directory {
                return Err(FileError::NotFound);
            }
            if name == ".." {
                // The root is its own parent.
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let number = self.0.lookup(directory, &name)?.ok_or(FileError::NotFound)?;
            let inode = self.0.inode(number)?;
            if inode.kind != Type::Link || (names.is_empty() && !follow) {
                way.push(inode);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(FileError::Damaged(format!("{path} is a link without an end")));
            }
            let target = String::from_utf8_lossy(&self.0.read(&inode, MAX_TARGET)?).into_owned();
            if target.starts_with('/') {
                way.truncate(1);
            }
            names.extend(stack(&target));
        }
        way.pop().ok_or(FileError::NotFound)
    }
}

/// The names of a path, the last one first, without empty ones and `.`.
fn stack(path: &str) -> Vec<String> {
    path.rsplit('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect()
}

impl FileSystem for Ext {
    fn name(&self) -> &'static str {
        "ext4"
    }

    fn grub_name(&self) -> &'static str {
        "ext2"
    }

    fn uuid(&self) -> String {
        self.0.superblock.uuid()
    }

    fn label(&self) -> String {
        self.0.superblock.label.clone()
    }

    fn kind(&self, path: &str) -> Result<Kind, FileError> {
        let inode = self.find(path, true)?;
        Ok(if inode.kind == Type::Directory { Kind::Directory } else { Kind::File(inode.size) })
    }

    fn entry(&self, path: &str) -> Result<Entry, FileError> {
        let inode = self.find(path, false)?;
        let directory = inode.kind == Type::Directory;
        Ok(Entry { directory, modified: Some(inode.modified.into()) })
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FileError> {
        let inode = self.find(path, true)?;
        if inode.kind != Type::File {
            return Err(FileError::WrongKind);
        }
        self.0.read(&inode, limit)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FileError> {
        let inode = self.find(path, true)?;
        if inode.kind != Type::Directory {
            return Err(FileError::WrongKind);
        }
        let entries = self.0.entries(&inode)?;
        let names = entries.iter().map(|entry| &entry.name);
        let names = names.filter(|name| !matches!(&***name, "." | "..")).cloned();
        Ok(names.take(MAX_NAMES).collect())
    }
}

#[cfg(test)]
pub(super) mod tests;
