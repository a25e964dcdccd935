//! qcow2 images that anybody may have written, and a guest that uses them as its disk.

use std::os::unix::fs::FileExt as _;

use cloister_vmm::disk::ImageFormat;

use super::guest::use_disk;
use super::{Bytes, file};

/// Bytes of a cluster: the least, so that few bytes reach every table.
const CLUSTER: usize = 512;
/// Bytes of the disk.
const DISK: u64 = 256 << 10;

/// A sound image: header, refcount table, refcounts, L1 table, L2 table, a cluster of data and a compressed one.
fn sound() -> Vec<u8> {
    let mut bytes = vec![0; 8 * CLUSTER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &9_u32.to_be_bytes());
    put(24, &DISK.to_be_bytes());
    // 64 entries of an L2 table are for 32 KiB.
    put(36, &8_u32.to_be_bytes());
    for (at, cluster) in [(40, 3), (48, 1)] {
        put(at, &(cluster * CLUSTER as u64).to_be_bytes());
    }
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..8 {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    const COPIED: u64 = 1 << 63;
    put(3 * CLUSTER, &(COPIED | (4 * CLUSTER as u64)).to_be_bytes());
    put(4 * CLUSTER, &(COPIED | (5 * CLUSTER as u64)).to_be_bytes());
    // A cluster of zeros, and one that is stored deflated.
    put(4 * CLUSTER + 8, &1_u64.to_be_bytes());
    put(4 * CLUSTER + 16, &((1 << 62) | (6 * CLUSTER as u64)).to_be_bytes());
    put(5 * CLUSTER, &[0xd1; CLUSTER]);
    // One stored block of 505 bytes, and one of 7.
    put(6 * CLUSTER, &[0, 0xf9, 1, 6, 0xfe]);
    bytes
}

/// Changes in a sound image, and what is done with it.
pub(crate) fn qcow2(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut contents = sound();
    let writable = bytes.u8() & 1 == 0;
    for _ in 0..bytes.u8() % 16 {
        // In the header, or in a table.
        let at = if bytes.u8() & 1 == 0 {
            usize::from(bytes.u8() % 112)
        } else {
            8 * (usize::from(bytes.u16()) % (contents.len() / 8 - 1))
        };
        let value = match bytes.u8() % 4 {
            0 => bytes.u64().to_be_bytes(),
            1 => (u64::from(bytes.u8()) * CLUSTER as u64).to_be_bytes(),
            2 => ((1 << 63) | (u64::from(bytes.u8()) * CLUSTER as u64)).to_be_bytes(),
            _ => ((1 << 62) | (bytes.u64() >> 2)).to_be_bytes(),
        };
        let len = if bytes.u8() & 1 == 0 { 8 } else { 4 };
        contents[at..at + len].copy_from_slice(&value[8 - len..]);
    }
    let image = file("qcow2");
    image.write_all_at(&contents, 0).expect("a file in memory");
    use_disk(&mut bytes, &image, ImageFormat::Qcow2, writable);
}
