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

/// The only disk, as GRUB calls it.
const DISK: &str = "hd0";

/// What GRUB calls a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Device {
    /// Its number among the volumes; `None` for a disk that has partitions.
    pub(super) volume: Option<usize>,
    /// The partition table that it is in.
    pub(super) table: Option<&'static str>,
}

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

    /// The device that GRUB calls so: `hd0,gpt2`, `hd0,2`, or `hd0` for the disk.
    pub(super) fn device(&self, name: &str) -> Option<Device> {
        let named = |wanted: &str| self.0.iter().position(|v| v.partition.device == wanted);
        if name == DISK {
            return Some(Device { volume: named(DISK), table: None });
        }
        let number = name.strip_prefix(DISK)?.strip_prefix(',')?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let volume = if is_number {
            self.0.iter().position(|volume| {
                let partition = volume.partition.device.strip_prefix(DISK);
                let partition =
                    partition.map(|p| p.trim_start_matches(|c: char| !c.is_ascii_digit()));
                partition == Some(number)
            })
        } else {
            named(name)
        }?;
        Some(Device { volume: Some(volume), table: self.0.get(volume)?.partition.table })
    }

    /// All devices, as GRUB goes through them: the disk, and its partitions from the last one on.
    pub(super) fn device_names(&self) -> Vec<String> {
        let partitions = self.0.iter().rev().map(|volume| volume.partition.device.clone());
        let partitions = partitions.filter(|device| device != DISK);
        std::iter::once(DISK.to_owned()).chain(partitions).collect()
    }

    /// The partitions of a device, from the first one on.
    pub(super) fn partition_names(&self, device: &str) -> Vec<String> {
        let partitions = self.0.iter().map(|volume| &volume.partition.device);
        let within =
            |name: &&String| name.strip_prefix(device).is_some_and(|rest| rest.starts_with(','));
        partitions.filter(within).cloned().collect()
    }

    /// The UUID of a partition itself.
    pub(super) fn partition_uuid(&self, volume: usize) -> Option<&str> {
        self.0.get(volume)?.partition.uuid.as_deref()
    }

    /// Whether two names are the same file of a volume.
    pub(super) fn same_name(&self, volume: usize, one: &str, other: &str) -> bool {
        self.system(volume).is_ok_and(|system| system.same_name(one, other))
    }

    /// GRUB's name of a volume.
    pub(super) fn name(&self, volume: usize) -> &str {
        self.0.get(volume).map_or("", |volume| &volume.partition.device)
    }

    /// The file system of a volume.
    pub(super) fn system(&self, volume: usize) -> Result<&dyn FileSystem, FileError> {
        let system = self.0.get(volume).map(|volume| volume.system.as_deref());
        match system {
            Some(Ok(system)) => Ok(system),
            Some(Err(what)) => Err(FileError::Unreadable(what.clone())),
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
    pub(super) initrds: Vec<InitrdPart>,
    pub(super) cmdline: String,
}

/// A part of what the kernel gets as its initial RAM disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InitrdPart {
    /// The name under which the file goes into an archive of its own.
    pub(super) name: Option<String>,
    pub(super) place: Place,
}
