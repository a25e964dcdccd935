//! VMDK images that anybody may have written, and a guest that uses them as its disk.

use std::os::unix::fs::FileExt as _;

use cloister_vmm::disk::ImageFormat;

use super::guest::use_disk;
use super::{Bytes, file};

const SECTOR: usize = 512;
/// Bytes of a grain, the fewest, and of the disk: two tables.
const GRAIN: u64 = 4096;
const DISK: u64 = GRAIN * 600;
/// Sectors of the parts of an image: its text, its directories, each with its two tables behind it, and grains.
const TEXT: usize = 1;
const DIRECTORIES: [usize; 2] = [2, 11];
const GRAINS: usize = 24;
const TEXTS: [&str; 4] = [
    "CID=0badcafe\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 4800 SPARSE \"a\"\n",
    "CID=0badcafe\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\nRW 4800 SPARSE \"a\"\n",
    "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 4800 FLAT \"a\" 0\n",
    "# Disk DescriptorFile\nparentCID=1\ncreateType=\"vmfs\"\nRW 1 VMFS \"a\"\nRW 1 VMFS \"b\"\n",
];

/// A sound image with a grain of data, and one that is compressed in one that is only read; its directory may
/// be told at its end.
fn sound(is_compressed: bool, has_footer: bool) -> Vec<u8> {
    let mut bytes = vec![0; GRAINS * SECTOR + 2 * GRAIN as usize];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"KDMV");
    let (version, flags) = if is_compressed { (3_u32, 0x3_0003_u32) } else { (2, 7) };
    for (at, value) in [(4, version), (8, flags), (44, 512)] {
        put(at, &value.to_le_bytes());
    }
    let [copies, directory] = DIRECTORIES;
    for (at, value) in [
        (12, DISK / SECTOR as u64),
        (20, GRAIN / SECTOR as u64),
        (28, TEXT as u64),
        (36, 1),
        (48, copies as u64),
        (56, directory as u64),
        (64, GRAINS as u64),
    ] {
        put(at, &value.to_le_bytes());
    }
    put(73, b"\n \r\n");
    put(77, &[is_compressed.into(), 0]);
    put(TEXT * SECTOR, TEXTS[usize::from(is_compressed)].as_bytes());
    for at in DIRECTORIES {
        for table in 0..2 {
            put(at * SECTOR + 4 * table, &(at as u32 + 1 + 4 * table as u32).to_le_bytes());
        }
        put((at + 1) * SECTOR, &(GRAINS as u32).to_le_bytes());
        put((at + 1) * SECTOR + 4, &1_u32.to_le_bytes());
    }
    if is_compressed {
        // Its sector, the length of its data, and those: a stored block of a grain.
        put(GRAINS * SECTOR + 8, &(4096_u32 + 11).to_le_bytes());
        put(GRAINS * SECTOR + 12, &[0x78, 1, 1, 0, 0x10, 0xff, 0xef]);
        // That of 4096 zeros.
        put(GRAINS * SECTOR + 12 + 7 + 4096, &[0x10, 0, 0, 1]);
    }
    if has_footer {
        let header = bytes[..SECTOR].to_vec();
        bytes[56..64].fill(0xff);
        let mut marker = [0; SECTOR];
        marker[12] = 3;
        bytes.extend(marker);
        bytes.extend(header);
        bytes.extend([0; SECTOR]);
    }
    bytes
}

/// Changes in a sound image, and what is done with it.
pub(crate) fn vmdk(data: &[u8]) {
    let mut bytes = Bytes(data);
    let kind = bytes.u8();
    let (writable, is_compressed) = (kind & 1 == 0, kind & 2 != 0);
    let mut contents = sound(is_compressed, kind & 4 != 0);
    if kind & 0xf8 == 0x18 {
        // A text alone.
        contents = TEXTS[usize::from(bytes.u8() % 4)].as_bytes().to_vec();
    }
    for _ in 0..bytes.u8() % 16 {
        let at = match bytes.u8() % 4 {
            // In the header, the directories and the first entries of tables.
            0 => usize::from(bytes.u8() % 80),
            1 => DIRECTORIES[usize::from(bytes.u8() & 1)] * SECTOR + usize::from(bytes.u8() % 8),
            2 => {
                let directory = DIRECTORIES[usize::from(bytes.u8() & 1)];
                (directory + 1) * SECTOR + 4 * usize::from(bytes.u8())
            }
            _ => usize::from(bytes.u16()),
        };
        let value = match bytes.u8() % 4 {
            0 => bytes.u64(),
            1 => bytes.u8().into(),
            2 => 1 << (bytes.u8() % 64),
            _ => u64::MAX - u64::from(bytes.u8()),
        };
        let len = [1, 2, 4, 8][usize::from(bytes.u8() % 4)];
        if let Some(place) = contents.get_mut(at..at + len) {
            place.copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }
    if bytes.u8() & 15 == 1 {
        contents.truncate(bytes.u16().into());
    }
    let image = file("vmdk");
    image.write_all_at(&contents, 0).expect("a file in memory");
    use_disk(&mut bytes, &image, ImageFormat::Vmdk, writable);
}
