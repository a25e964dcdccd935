//! The superblock.

use crate::disk::filesystem::FileError;
use crate::disk::region::Region;

/// Where it lies.
const OFFSET: u64 = 1024;
const MAGIC: u64 = 0x38;
/// Inodes of revision 0.
const OLD_INODE: u16 = 128;
/// Group descriptors without 64-bit numbers, and with them.
const SHORT_DESCRIPTOR: u64 = 32;
pub(super) const LONG_DESCRIPTOR: u64 = 64;

/// Compatible features.
const SPARSE_SUPER2: u32 = 0x200;
const HAS_JOURNAL: u32 = 0x4;
/// Features of file systems that may be read by those who do not know them.
const SPARSE_SUPER: u32 = 0x1;

/// Features without which a file system cannot be read. These are known.
pub(super) const FILETYPE: u32 = 0x2;
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const EXTENTS: u32 = 0x40;
const WITH_64BIT: u32 = 0x80;
const MMP: u32 = 0x100;
const FLEX_BG: u32 = 0x200;
const CSUM_SEED: u32 = 0x2000;
pub(super) const LARGE_DIR: u32 = 0x4000;
const ENCRYPT: u32 = 0x1_0000;
const KNOWN: u32 = FILETYPE
    | RECOVER
    | META_BG
    | EXTENTS
    | WITH_64BIT
    | MMP
    | FLEX_BG
    | CSUM_SEED
    | LARGE_DIR
    | ENCRYPT;
/// Names of those that are not, as `mke2fs -O` has them. GRUB reads none of them either.
const UNKNOWN: [(u32, &str); 6] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x8000, "inline_data"),
    (0x2_0000, "casefold"),
];

/// What is needed of it.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    /// Bytes of a block.
    pub(super) block: u64,
    pub(super) blocks: u64,
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    /// Bytes of a group descriptor.
    pub(super) descriptor: u64,
    /// Of [`FILETYPE`] and its like.
    pub(super) features: u32,
    /// The inode of the journal that is to be played back.
    pub(super) journal: Option<u32>,
    pub(super) label: String,
    uuid: [u8; 16],
    first_block: u64,
    blocks_per_group: u64,
    first_meta_group: u64,
    sparse: bool,
    /// The only groups with copies, of `sparse_super2`.
    copies: Option<[u32; 2]>,
}

impl Superblock {
    pub(super) fn is_magic(region: &Region) -> bool {
        region.array(OFFSET + MAGIC).is_ok_and(|bytes: [u8; 2]| bytes == [0x53, 0xef])
    }

    pub(super) fn read(region: &Region) -> Result<Self, FileError> {
        let bytes: [u8; 1024] =
            region.array(OFFSET).map_err(|error| damaged(&error.to_string()))?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;

        let is_old = word(0x4c) == 0;
        let (compatible, features, read_only) =
            if is_old { (0, 0, 0) } else { (word(0x5c), word(0x60), word(0x64)) };
        refuse_unknown(features)?;
        let inode_size = if is_old { OLD_INODE } else { half(0x58) };
        let shift = word(0x18);
        if shift > 6 {
            return Err(damaged("its blocks are too large"));
        }
        let block = 1024_u64 << shift;
        let high = if features & WITH_64BIT == 0 { 0 } else { u64::from(word(0x150)) };
        let blocks = high << 32 | u64::from(word(0x4));
        if blocks > region.len() / block {
            return Err(damaged("it is larger than its partition"));
        }
        if inode_size < OLD_INODE || u64::from(inode_size) > block {
            return Err(damaged("its inodes have no size that is known"));
        }
        let (blocks_per_group, inodes_per_group) = (u64::from(word(0x20)), word(0x28));
        if blocks_per_group == 0 || inodes_per_group == 0 {
            return Err(damaged("its groups are empty"));
        }
        let descriptor = match (features & WITH_64BIT, u64::from(half(0xfe))) {
            (0, _) => SHORT_DESCRIPTOR,
            (_, size) if (LONG_DESCRIPTOR..=block).contains(&size) => size,
            _ => return Err(damaged("its group descriptors have no size that is known")),
        };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[0x68..0x78]);
        let label = bytes[0x78..0x88].split(|byte| *byte == 0).next().unwrap_or_default();
        let to_replay = features & RECOVER != 0 && compatible & HAS_JOURNAL != 0;
        Ok(Self {
            block,
            blocks,
            inodes: word(0),
            inodes_per_group,
            inode_size,
            descriptor,
            features,
            journal: to_replay.then(|| word(0xe0)),
            label: String::from_utf8_lossy(label).into_owned(),
            uuid,
            first_block: word(0x14).into(),
            blocks_per_group,
            first_meta_group: if features & META_BG == 0 { u64::MAX } else { word(0x104).into() },
            sparse: read_only & SPARSE_SUPER != 0,
            copies: (compatible & SPARSE_SUPER2 != 0).then(|| [word(0x24c), word(0x250)]),
        })
    }

    /// As `blkid` and GRUB write it.
    pub(super) fn uuid(&self) -> String {
        let digits: String = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]).join("-")
    }

    /// Where the descriptor of a group lies, in bytes; `None` if nowhere.
    pub(super) fn descriptor_at(&self, group: u64) -> Option<u64> {
        let per_block = self.block / self.descriptor;
        let (number, index) = (group / per_block, group % per_block);
        let table = if number < self.first_meta_group {
            // After the superblock's block.
            let superblock = u64::from(self.block == OFFSET);
            superblock.checked_add(1)?.checked_add(number)?
        } else {
            // With META_BG as many groups as one block describes have that block in their first.
            let first = number.checked_mul(per_block)?;
            let start = first.checked_mul(self.blocks_per_group)?.checked_add(self.first_block)?;
            let small = self.block == OFFSET && number == 0 && self.first_block == 0;
            start.checked_add(u64::from(self.has_copy(first)) + u64::from(small))?
        };
        table.checked_mul(self.block)?.checked_add(index * self.descriptor)
    }

    /// Whether a group begins with a superblock.
    fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if let Some(copies) = self.copies {
            return copies.iter().any(|copy| u64::from(*copy) == group);
        }
        let is_power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        group == 1 || !self.sparse || [3, 5, 7].into_iter().any(is_power_of)
    }
}

fn refuse_unknown(features: u32) -> Result<(), FileError> {
    let unknown = features & !KNOWN;
    if unknown == 0 {
        return Ok(());
    }
    let name = |bit: u32| match UNKNOWN.iter().find(|(feature, _)| *feature == 1 << bit) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("number {bit}"),
    };
    let names: Vec<String> = (0..32).filter(|bit| unknown >> bit & 1 != 0).map(name).collect();
    Err(FileError::Unsupported(names.join(", ")))
}

pub(super) fn damaged(what: &str) -> FileError {
    FileError::Damaged(what.to_owned())
}
