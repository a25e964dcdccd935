//! The file systems of a disk, and places in them.

use super::filesystem::{self, FileError, FileSystem, Kind};
use super::partitions::{Partition, partitions};
use super::region::Region;

/// A partition and the file system on it.
pub(super) struct Volume {
    pub(super) partition: Partition,
    /// Or what is there instead, for a message.
    pub(super) system: Result<Box<dyn FileSystem>, String>,
}

/// Those of a disk, in the order of their numbers.
pub(super) struct Volumes(Vec<Volume>);

/// A path in the file system of a volume.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// Its number among the volumes.
    pub(super) volume: usize,
    /// Absolute.
    pub(super) path: String,
}

impl Volumes {
    /// Looks at every partition of a disk.
    pub(super) fn open(disk: &Region) -> Self {
        let open = |partition: Partition| Volume {
            system: filesystem::open(&partition.region),
            partition,
        };
        Self(partitions(disk).into_iter().map(open).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Volume)> {
        self.0.iter().enumerate()
    }

    /// Those with a file system.
    pub(super) fn systems(&self) -> impl Iterator<Item = (usize, &Volume, &dyn FileSystem)> {
        self.iter()
            .filter_map(|(index, volume)| Some((index, volume, volume.system.as_deref().ok()?)))
    }

    /// The volume that GRUB calls so: `hd0,gpt2`, `hd0,2`, with or without parentheses.
    pub(super) fn device(&self, name: &str) -> Option<usize> {
        let name = name.trim_start_matches('(').trim_end_matches(')');
        let number = |device: &str| {
            let (disk, partition) = device.split_once(',').unwrap_or((device, ""));
            let digits = partition.trim_start_matches(|c: char| !c.is_ascii_digit());
            (disk.to_owned(), digits.to_owned())
        };
        let wanted = number(name);
        self.0.iter().position(|volume| number(&volume.partition.device) == wanted)
    }

    /// GRUB's name of a volume.
    pub(super) fn name(&self, volume: usize) -> &str {
        self.0.get(volume).map_or("", |volume| &volume.partition.device)
    }

    fn system(&self, volume: usize) -> Result<&dyn FileSystem, FileError> {
        let system = self.0.get(volume).map(|volume| volume.system.as_deref());
        match system {
            Some(Ok(system)) => Ok(system),
            Some(Err(what)) => Err(FileError::Damaged(what.clone())),
            None => Err(FileError::NotFound),
        }
    }

    /// What is at a place.
    pub(super) fn kind(&self, place: &Place) -> Result<Kind, FileError> {
        self.system(place.volume)?.kind(&place.path)
    }

    /// The bytes of a file, at most `limit`.
    pub(super) fn read(&self, place: &Place, limit: u64) -> Result<Vec<u8>, FileError> {
        self.system(place.volume)?.read(&place.path, limit)
    }

    /// The names in a directory.
    pub(super) fn list(&self, place: &Place) -> Result<Vec<String>, FileError> {
        self.system(place.volume)?.list(&place.path)
    }

    /// A place as messages name it: `/boot/grub/grub.cfg of hd0,gpt2`.
    pub(super) fn describe(&self, place: &Place) -> String {
        format!("{} of {}", place.path, self.name(place.volume))
    }
}

/// What a configuration says to boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    /// The entry's title.
    pub(super) title: String,
    pub(super) kernel: Place,
    /// One after the other.
    pub(super) initrds: Vec<Place>,
    pub(super) cmdline: String,
}
