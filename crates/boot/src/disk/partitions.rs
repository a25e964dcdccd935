//! The partitions of a disk: GPT (UEFI 2.10, section 5.3), or the table of an MBR, or neither.

use std::io::{Seek, SeekFrom};

use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, read_header_from_arbitrary_device};
use gpt::partition::file_read_partitions;
use gpt::partition_types::EFI;

use super::region::Region;

/// What virtio-blk counts in here.
const SECTOR: u64 = 512;
/// Linux makes no more partitions of a disk.
const MAX_PARTITIONS: u32 = 256;
/// The only size of an entry that is in use.
const GPT_ENTRY_SIZE: u32 = 128;
/// Type of an extended boot loader partition (Boot Loader Specification).
const XBOOTLDR: &str = "BC13C2FF-59E6-4262-A352-B275FD6F7172";

/// Offset of the disk's number in a master boot record.
const MBR_DISK_SIGNATURE: u64 = 440;
/// Offset of the table in a master boot record, and of its signature.
const MBR_TABLE: usize = 446;
const MBR_SIGNATURE: usize = 510;
/// Types of an entry: the whole disk is GPT's, a container of logical partitions, the ESP.
const MBR_PROTECTIVE: u8 = 0xee;
const MBR_EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const MBR_ESP: u8 = 0xef;
const MBR_XBOOTLDR: u8 = 0xea;

/// What a partition is for, as far as booting goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Role {
    /// EFI system partition.
    Esp,
    /// Extended boot loader partition.
    Xbootldr,
    /// Anything else.
    Other,
}

/// A partition, or a disk without partitions.
#[derive(Clone)]
pub(super) struct Partition {
    /// As GRUB writes it: `hd0,gpt2`, `hd0,msdos1`, `hd0`.
    pub(super) device: String,
    /// The table that it is in, as GRUB calls it.
    pub(super) table: Option<&'static str>,
    /// Its own UUID, as Linux has it in PARTUUID.
    pub(super) uuid: Option<String>,
    pub(super) role: Role,
    pub(super) region: Region,
}

/// The partitions of `disk` in the order of their numbers; the disk itself if it has no table.
pub(super) fn partitions(disk: &Region) -> Vec<Partition> {
    if let Some(found) = gpt_partitions(disk) {
        return found;
    }
    match mbr_partitions(disk) {
        found if !found.is_empty() => found,
        _ => vec![Partition {
            device: "hd0".into(),
            table: None,
            uuid: None,
            role: Role::Other,
            region: disk.clone(),
        }],
    }
}

/// `None` if neither the primary nor the backup table holds.
fn gpt_partitions(disk: &Region) -> Option<Vec<Partition>> {
    gpt_table(disk, 0).or_else(|| {
        // The reader looks one sector in for a header; the backup is in the last sector.
        let last = (disk.len() / SECTOR).checked_sub(2)?;
        gpt_table(disk, last * SECTOR)
    })
}

/// The partitions of the table whose header lies one sector after `offset`.
fn gpt_table(disk: &Region, offset: u64) -> Option<Vec<Partition>> {
    let mut header = disk.part(offset, disk.len().checked_sub(offset)?)?.cursor();
    let header = read_header_from_arbitrary_device(&mut header, LogicalBlockSize::Lb512).ok()?;
    if header.part_size != GPT_ENTRY_SIZE || header.num_parts > MAX_PARTITIONS {
        tracing::warn!(
            size = header.part_size,
            entries = header.num_parts,
            "a GPT with unusual entries is not read"
        );
        return None;
    }
    read_gpt(disk, &header)
}

fn read_gpt(disk: &Region, header: &Header) -> Option<Vec<Partition>> {
    let mut cursor = disk.cursor();
    cursor.seek(SeekFrom::Start(0)).ok()?;
    let table = file_read_partitions(&mut cursor, header, LogicalBlockSize::Lb512).ok()?;
    let found = table.iter().filter_map(|(number, entry)| {
        let start = entry.first_lba.checked_mul(SECTOR)?;
        let end = entry.last_lba.checked_add(1)?.checked_mul(SECTOR)?;
        let kind = entry.part_type_guid.guid.to_string().to_ascii_uppercase();
        let role = if entry.part_type_guid == EFI {
            Role::Esp
        } else if kind == XBOOTLDR {
            Role::Xbootldr
        } else {
            Role::Other
        };
        Some(Partition {
            device: format!("hd0,gpt{number}"),
            table: Some("gpt"),
            uuid: Some(entry.part_guid.to_string().to_lowercase()),
            role,
            region: disk.part(start, end.checked_sub(start)?)?,
        })
    });
    Some(found.collect())
}

/// One used entry of an MBR's table.
struct MbrEntry {
    number: u32,
    kind: u8,
    /// In sectors, from whatever the table counts from.
    start: u64,
    len: u64,
}

/// The used entries of the table in the sector at `sector`; none without its signature.
fn mbr_table(disk: &Region, sector: u64) -> Vec<MbrEntry> {
    let Some(Ok(bytes)) = sector.checked_mul(SECTOR).map(|at| disk.array::<512>(at)) else {
        return Vec::new();
    };
    if bytes[MBR_SIGNATURE..] != [0x55, 0xaa] {
        return Vec::new();
    }
    let word = |entry: &[u8], at: usize| {
        u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]))
    };
    (1..)
        .zip(bytes[MBR_TABLE..MBR_SIGNATURE].chunks_exact(16))
        // Code, where a FAT boot sector has some, has other bytes than these two here.
        .filter(|(_, entry)| entry[4] != 0 && entry[0] & 0x7f == 0)
        .map(|(number, entry)| MbrEntry {
            number,
            kind: entry[4],
            start: word(entry, 8),
            len: word(entry, 12),
        })
        .collect()
}

fn mbr_partitions(disk: &Region) -> Vec<Partition> {
    let mut found = Vec::new();
    let signature = disk.array(MBR_DISK_SIGNATURE).map_or(0, u32::from_le_bytes);
    let partition = |number: u32, kind: u8, start: u64, len: u64| {
        let role = match kind {
            MBR_ESP => Role::Esp,
            MBR_XBOOTLDR => Role::Xbootldr,
            _ => Role::Other,
        };
        disk.part(start * SECTOR, len * SECTOR).filter(|_| start > 0).map(|region| Partition {
            device: format!("hd0,msdos{number}"),
            table: Some("msdos"),
            uuid: Some(format!("{signature:08x}-{number:02x}")),
            role,
            region,
        })
    };
    let mut logical = 5;
    for entry in mbr_table(disk, 0) {
        if entry.kind == MBR_PROTECTIVE {
            continue;
        }
        if !MBR_EXTENDED.contains(&entry.kind) {
            found.extend(partition(entry.number, entry.kind, entry.start, entry.len));
            continue;
        }
        // A chain of tables: each names one logical partition, counted from itself, and the next
        // table, counted from the first. A loop ends with the numbers.
        let mut next = Some(0);
        while let Some(offset) = next.take() {
            let table = entry.start + offset;
            if logical > MAX_PARTITIONS {
                break;
            }
            for link in mbr_table(disk, table) {
                if MBR_EXTENDED.contains(&link.kind) {
                    next = Some(link.start);
                } else {
                    found.extend(partition(logical, link.kind, table + link.start, link.len));
                }
            }
            logical += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    const MIB: usize = 1 << 20;

    fn gpt_disk() -> Vec<u8> {
        let mut disk = gpt::GptConfig::new()
            .writable(true)
            .create_from_device(Cursor::new(vec![0; 16 * MIB]), None)
            .unwrap();
        disk.add_partition("esp", 4 << 20, EFI, 0, None).unwrap();
        let linux = gpt::partition_types::LINUX_FS;
        disk.add_partition("root", 8 << 20, linux, 0, None).unwrap();
        disk.write().unwrap().into_inner()
    }

    fn entry(kind: u8, start: u32, len: u32) -> [u8; 16] {
        let mut entry = [0; 16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&len.to_le_bytes());
        entry
    }

    fn put_table(disk: &mut [u8], sector: usize, entries: &[[u8; 16]]) {
        let at = sector * 512;
        for (index, entry) in entries.iter().enumerate() {
            let start = at + MBR_TABLE + 16 * index;
            disk[start..start + 16].copy_from_slice(entry);
        }
        disk[at + 510..at + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    fn summary(disk: Vec<u8>) -> Vec<(String, Role, u64)> {
        partitions(&Region::of(disk))
            .into_iter()
            .map(|partition| (partition.device, partition.role, partition.region.len()))
            .collect()
    }

    #[test]
    fn gpt_partitions_have_their_numbers_and_roles() {
        let expected = [
            ("hd0,gpt1".to_owned(), Role::Esp, 4 << 20),
            ("hd0,gpt2".to_owned(), Role::Other, 8 << 20),
        ];
        assert_eq!(summary(gpt_disk()), expected);
    }

    #[test]
    fn the_backup_table_serves_when_the_first_is_gone() {
        let mut disk = gpt_disk();
        disk[512..34 * 512].fill(0);

        assert_eq!(summary(disk).len(), 2);
    }

    #[test]
    fn a_gpt_of_other_entries_is_not_read() {
        let mut disk = gpt_disk();
        for header in [512, 16 * MIB - 512] {
            disk[header + 84..header + 88].copy_from_slice(&256_u32.to_le_bytes());
            disk[header + 16..header + 20].fill(0);
            let crc = crc(&disk[header..header + 92]);
            disk[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
        }

        assert_eq!(summary(disk), [("hd0".to_owned(), Role::Other, 16 << 20)]);
    }

    /// CRC-32 of IEEE 802.3, bit by bit.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
            })
        })
    }

    #[test]
    fn mbr_partitions_primary_and_logical() {
        let mut disk = vec![0; MIB];
        put_table(&mut disk, 0, &[entry(0xef, 8, 16), entry(0x83, 64, 64), entry(5, 256, 512)]);
        put_table(&mut disk, 256, &[entry(0x83, 8, 32), entry(5, 100, 100)]);
        put_table(&mut disk, 356, &[entry(0x83, 4, 8)]);

        let expected = [
            ("hd0,msdos1".to_owned(), Role::Esp, 16 * 512),
            ("hd0,msdos2".to_owned(), Role::Other, 64 * 512),
            ("hd0,msdos5".to_owned(), Role::Other, 32 * 512),
            ("hd0,msdos6".to_owned(), Role::Other, 8 * 512),
        ];
        assert_eq!(summary(disk), expected);
    }

    #[test]
    fn a_chain_of_logical_partitions_that_loops_ends() {
        let mut disk = vec![0; MIB];
        put_table(&mut disk, 0, &[entry(5, 256, 512)]);
        put_table(&mut disk, 256, &[entry(0x83, 8, 32), entry(5, 0, 100)]);

        assert!(summary(disk).len() <= MAX_PARTITIONS as usize);
    }

    #[test]
    fn a_disk_without_a_table_is_one_volume() {
        assert_eq!(summary(vec![0; MIB]), [("hd0".to_owned(), Role::Other, MIB as u64)]);
        assert_eq!(summary(vec![0; 512]).len(), 1);
    }

    proptest! {
        #[test]
        fn changed_tables_never_panic_nor_reach_outside(
            mbr in any::<bool>(),
            flips in prop::collection::vec((0_usize..2048, any::<u8>()), 1..20),
        ) {
            let mut disk = if mbr { vec![0; MIB] } else { gpt_disk() };
            if mbr {
                put_table(&mut disk, 0, &[entry(0x83, 8, 16), entry(5, 2, 512)]);
                put_table(&mut disk, 2, &[entry(0x83, 8, 32), entry(5, 1, 100)]);
            }
            for (at, value) in flips {
                disk[at] = value;
            }
            let len = disk.len() as u64;

            for partition in partitions(&Region::of(disk)) {
                prop_assert!(partition.region.len() <= len);
            }
        }
    }
}
