//! FAT12, FAT16 and FAT32 (Microsoft's FAT specification of 2005, and long names), read only.
//!
//! By hand: the crate that others use, `fatfs`, does its arithmetic on the numbers of a boot sector
//! and of cluster chains unchecked, and those are the guest's. It makes the file systems of the
//! tests.

mod directory;
mod volume;

use std::cell::OnceCell;

use super::filesystem::{self, FileError, FileSystem, Kind, MAX_NAMES};
use super::region::Region;
use directory::{Entry, entries};
use volume::{Place, Volume};

/// A FAT file system.
pub(super) struct Fat {
    volume: Volume,
    label: OnceCell<String>,
}

impl Fat {
    /// `None` if the region's first sector is not a FAT boot sector.
    pub(super) fn open(region: &Region) -> Option<Self> {
        Some(Self { volume: Volume::open(region)?, label: OnceCell::new() })
    }

    /// The entry of a path; `None` for the root directory, which has none.
    fn find(&self, path: &str) -> Result<Option<Entry>, FileError> {
        let mut way: Vec<Entry> = Vec::new();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(way.pop()),
                _ => {
                    let found = self.entries_of(way.last())?;
                    let found = found.into_iter().find(|entry| entry.is_named(name));
                    way.push(found.ok_or(FileError::NotFound)?);
                }
            }
        }
        Ok(way.pop())
    }

    /// What a directory holds; the root directory's without an entry.
    fn entries_of(&self, directory: Option<&Entry>) -> Result<Vec<Entry>, FileError> {
        let place = match directory {
            None => Place::Root,
            Some(entry) if entry.directory => Place::Chain(entry.cluster),
            Some(_) => return Err(FileError::NotFound),
        };
        let mut found = entries(&self.volume.directory(place)?);
        found.retain(|entry| !entry.volume_label && !matches!(&*entry.name, "." | ".."));
        Ok(found)
    }

    /// The label in the root directory, else that of the boot sector.
    fn find_label(&self) -> String {
        let root = self.volume.directory(Place::Root).unwrap_or_default();
        let label = entries(&root).into_iter().find(|entry| entry.volume_label);
        label.map_or_else(|| self.volume.label.clone(), |entry| entry.name)
    }
}

impl FileSystem for Fat {
    fn name(&self) -> &'static str {
        "FAT"
    }

    fn grub_name(&self) -> &'static str {
        "fat"
    }

    fn same_name(&self, one: &str, other: &str) -> bool {
        one.to_lowercase() == other.to_lowercase()
    }

    fn uuid(&self) -> String {
        format!("{:04X}-{:04X}", self.volume.serial >> 16, self.volume.serial & 0xffff)
    }

    fn label(&self) -> String {
        self.label.get_or_init(|| self.find_label()).clone()
    }

    fn kind(&self, path: &str) -> Result<Kind, FileError> {
        Ok(match self.find(path)? {
            Some(entry) if !entry.directory => Kind::File(entry.size.into()),
            _ => Kind::Directory,
        })
    }

    fn entry(&self, path: &str) -> Result<filesystem::Entry, FileError> {
        Ok(match self.find(path)? {
            Some(entry) => {
                filesystem::Entry { directory: entry.directory, modified: entry.modified }
            }
            None => filesystem::Entry { directory: true, modified: None },
        })
    }

    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FileError> {
        let entry = self.find(path)?.filter(|entry| !entry.directory);
        let entry = entry.ok_or(FileError::WrongKind)?;
        let size = u64::from(entry.size);
        if size > limit {
            return Err(FileError::TooLarge { size, limit });
        }
        self.volume.chain(entry.cluster, size)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, FileError> {
        let directory = self.find(path)?;
        if directory.as_ref().is_some_and(|entry| !entry.directory) {
            return Err(FileError::WrongKind);
        }
        let found = self.entries_of(directory.as_ref())?;
        Ok(found.into_iter().take(MAX_NAMES).map(|entry| entry.name).collect())
    }
}

#[cfg(test)]
pub(super) mod tests;
