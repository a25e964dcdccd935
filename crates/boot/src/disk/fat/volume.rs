//! The boot sector, the table and the clusters of a FAT file system.

use super::super::filesystem::FileError;
use super::super::region::Region;

use crate::narrow::{in_32_bits, in_memory};

/// No directory has more than 65536 entries of 32 bytes.
const MAX_DIRECTORY: u64 = 2 << 20;
/// Clusters below this number are not data.
const FIRST_CLUSTER: u32 = 2;
/// A volume of fewer clusters than this is FAT12, then FAT16.
const FAT16_CLUSTERS: u64 = 4085;
const FAT32_CLUSTERS: u64 = 65525;
/// The most that FAT32 numbers.
const MAX_CLUSTERS: u64 = 0x0fff_fff5;

/// Width of an entry of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Where a directory lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The root directory, wherever that is.
    Root,
    /// The chain of this cluster.
    Chain(u32),
}

/// The numbers of the boot sector, checked against the region.
pub(super) struct Volume {
    region: Region,
    width: Width,
    /// Bytes.
    cluster: u64,
    table: Region,
    /// Offset of the first cluster.
    data: u64,
    clusters: u32,
    root: Root,
    pub(super) serial: u32,
    pub(super) label: String,
}

enum Root {
    /// FAT12 and FAT16: an area of its own.
    Area(Region),
    Chain(u32),
}

impl Volume {
    /// `None` if the first sector is not a FAT boot sector whose numbers fit the region.
    pub(super) fn open(region: &Region) -> Option<Self> {
        let bytes: [u8; 512] = region.array(0).ok()?;
        let half = |at: usize| u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let word = |at: usize| half(at) | half(at + 2) << 16;
        let either = |first: u64, second: u64| if first != 0 { first } else { second };
        if bytes[510..] != [0x55, 0xaa] {
            return None;
        }
        let sector = half(11);
        let sectors_per_cluster = u64::from(bytes[13]);
        let reserved = half(14);
        let tables = u64::from(bytes[16]);
        let root_bytes = half(17) * 32;
        let sectors = either(half(19), word(32));
        let is_fat32 = half(22) == 0;
        let table_sectors = if is_fat32 { word(36) } else { half(22) };
        let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
            && sectors_per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=4).contains(&tables)
            && table_sectors > 0
            && is_fat32 == (root_bytes == 0);
        if !sane || sectors * sector > region.len() {
            return None;
        }

        // Of numbers of at most 32 bits each; nothing here reaches 2^64.
        let root = (reserved + tables * table_sectors) * sector;
        let data = root + root_bytes.next_multiple_of(sector);
        let cluster = sectors_per_cluster * sector;
        let clusters = (sectors * sector).checked_sub(data)? / cluster;
        let width = if is_fat32 {
            Width::Fat32
        } else if clusters < FAT16_CLUSTERS {
            Width::Fat12
        } else if clusters < FAT32_CLUSTERS {
            Width::Fat16
        } else {
            return None;
        };
        // What follows the numbers above begins later with FAT32.
        let extended = if is_fat32 { 66 } else { 38 };
        let serial = if bytes[extended] & !1 == 0x28 { word(extended + 1) } else { 0 };
        let label = String::from_utf8_lossy(&bytes[extended + 5..extended + 16]);
        Some(Self {
            region: region.clone(),
            width,
            cluster,
            table: region.part(reserved * sector, table_sectors * sector)?,
            data,
            clusters: u32::try_from(clusters.min(MAX_CLUSTERS)).ok()?,
            root: if is_fat32 {
                Root::Chain(in_32_bits(word(44)))
            } else {
                Root::Area(region.part(root, root_bytes)?)
            },
            serial: in_32_bits(serial),
            label: label.trim_end().to_owned(),
        })
    }

    /// The bytes of a directory: entries of 32 bytes each.
    pub(super) fn directory(&self, place: Place) -> Result<Vec<u8>, FileError> {
        let first = match (place, &self.root) {
            (Place::Root, Root::Area(area)) => {
                let mut bytes = vec![0; in_memory(area.len())];
                area.read_at(0, &mut bytes).map_err(damaged)?;
                return Ok(bytes);
            }
            (Place::Root, Root::Chain(cluster)) => *cluster,
            // The parent of a directory in the root is written as cluster 0.
            (Place::Chain(0), _) => return self.directory(Place::Root),
            (Place::Chain(cluster), _) => cluster,
        };
        let mut bytes = Vec::new();
        let mut cluster = Some(first);
        while let Some(number) = cluster
            && (bytes.len() as u64) < MAX_DIRECTORY
        {
            self.append(number, self.cluster, &mut bytes)?;
            cluster = self.next(number)?;
        }
        Ok(bytes)
    }

    /// The first `size` bytes of a chain.
    pub(super) fn chain(&self, first: u32, size: u64) -> Result<Vec<u8>, FileError> {
        if size > u64::from(self.clusters) * self.cluster {
            return Err(FileError::Damaged(format!("a file of {size} bytes does not fit it")));
        }
        let mut bytes = Vec::new();
        let mut cluster = Some(first);
        // Each round adds bytes, so that a chain that loops ends with the size.
        while (bytes.len() as u64) < size {
            let Some(number) = cluster else {
                return Err(FileError::Damaged("a file ends before its size".into()));
            };
            let left = size - bytes.len() as u64;
            self.append(number, left.min(self.cluster), &mut bytes)?;
            cluster = if left > self.cluster { self.next(number)? } else { None };
        }
        Ok(bytes)
    }

    /// Appends the first `len` bytes of a cluster.
    fn append(&self, number: u32, len: u64, bytes: &mut Vec<u8>) -> Result<(), FileError> {
        let index = number.checked_sub(FIRST_CLUSTER).filter(|index| *index < self.clusters);
        let index = index.ok_or_else(|| FileError::Damaged(format!("no cluster {number}")))?;
        let start = bytes.len();
        bytes.resize(start + in_memory(len), 0);
        let offset = self.data + u64::from(index) * self.cluster;
        self.region.read_at(offset, &mut bytes[start..]).map_err(damaged)
    }

    /// The cluster after one that exists; `None` at the end of the chain.
    fn next(&self, number: u32) -> Result<Option<u32>, FileError> {
        let at = u64::from(number);
        let half = |at| self.table.array(at).map(u16::from_le_bytes).map_err(damaged);
        let (next, end) = match self.width {
            Width::Fat12 => {
                let pair = half(at + at / 2)?;
                (u32::from(if number & 1 == 0 { pair & 0xfff } else { pair >> 4 }), 0xff8)
            }
            Width::Fat16 => (half(at * 2)?.into(), 0xfff8),
            Width::Fat32 => {
                let bytes = self.table.array(at * 4).map_err(damaged)?;
                (u32::from_le_bytes(bytes) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok((next < end).then_some(next))
    }
}

fn damaged(error: std::io::Error) -> FileError {
    FileError::Damaged(error.to_string())
}
