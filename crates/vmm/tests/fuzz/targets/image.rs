//! Images of disks that the targets change.

use std::io::{Cursor, Write as _};
use std::process::{Command, Stdio};

use cloister_boot::testing::bzimage;
use fatfs::{FatType, FormatVolumeOptions, FsOptions};

/// Bytes of a FAT or ext4 file system.
const SIZE: usize = 256 << 10;
/// The most that a file of [`fat`] may hold.
pub(super) const ROOM: usize = 4096;

/// Where a file of [`fat`] is in its image.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Its size, in its directory's entry: four bytes.
    pub(super) size: usize,
    /// Its [`ROOM`] bytes.
    pub(super) contents: usize,
}

/// A FAT12 file system with `/k`, a kernel, and files of [`ROOM`] bytes at these paths.
pub(super) fn fat(paths: &[&str]) -> (Vec<u8>, Vec<Slot>) {
    let mut bytes = vec![0; SIZE];
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat12)
        .bytes_per_cluster(512)
        .volume_id(0x1234_abcd)
        .volume_label(*b"BOOTFILES  ");
    fatfs::format_volume(Cursor::new(&mut bytes[..]), options).expect("a volume");
    let marker = |index: usize| [0xa0 + index as u8; ROOM];
    {
        let system =
            fatfs::FileSystem::new(Cursor::new(&mut bytes[..]), FsOptions::new()).expect("FAT");
        let root = system.root_dir();
        root.create_file("k").and_then(|mut file| file.write_all(&bzimage(&[]))).expect("a file");
        for (index, path) in paths.iter().enumerate() {
            for (end, _) in path.match_indices('/') {
                root.create_dir(&path[..end]).expect("a directory");
            }
            let file = root.create_file(path);
            // Each has a size of its own, by which its entry is found.
            file.and_then(|mut file| file.write_all(&marker(index)[index..])).expect("a file");
        }
    }
    let slot = |index: usize| {
        let size = (ROOM - index) as u32;
        let contents = bytes.windows(64).position(|window| window == &marker(index)[..64]);
        let is_entry = |entry: &&[u8]| entry[28..32] == size.to_le_bytes() && entry[11] != 0x0f;
        let entry = bytes.chunks_exact(32).position(|entry| is_entry(&entry));
        Slot { size: entry.expect("an entry") * 32 + 28, contents: contents.expect("its contents") }
    };
    let slots = (0..paths.len()).map(slot).collect();
    (bytes, slots)
}

/// An ext4 file system with a kernel and a GRUB configuration, without checksums, which would
/// hide changes from the reader. `None` where there is no mke2fs.
pub(super) fn ext4(config: &[u8]) -> Option<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("cloister-fuzz-{}", std::process::id()));
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("boot/grub")).ok()?;
    std::fs::write(root.join("boot/grub/grub.cfg"), config).ok()?;
    std::fs::write(root.join("k"), bzimage(&[])).ok()?;
    std::os::unix::fs::symlink("/k", root.join("vmlinuz")).ok()?;
    let image = folder.join("image");
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "1024", "-N", "32"])
        .args(["-O", "^metadata_csum,^has_journal,^resize_inode", "-d"])
        .args([&root, &image])
        .arg("256k")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let bytes = made.ok().filter(|status| status.success()).and(std::fs::read(&image).ok());
    let _ = std::fs::remove_dir_all(&folder);
    bytes
}

/// A disk with an MBR whose only partition is `contents`.
pub(super) fn mbr(contents: &[u8]) -> Vec<u8> {
    let sectors = (contents.len() / 512) as u32;
    let mut image = vec![0; 512];
    image[446 + 4] = 0x83;
    image[446 + 8] = 1;
    image[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    image[510..].copy_from_slice(&[0x55, 0xaa]);
    image.extend_from_slice(contents);
    image
}

/// A disk with a GPT whose only partition is `contents`.
pub(super) fn gpt(contents: &[u8]) -> Vec<u8> {
    let device = Cursor::new(vec![0; contents.len() + (2 << 20)]);
    let mut table =
        gpt::GptConfig::new().writable(true).create_from_device(device, None).expect("a GPT");
    let kind = gpt::partition_types::EFI;
    let id = table.add_partition("", contents.len() as u64, kind, 0, None).expect("a partition");
    let start = table.partitions()[&id].first_lba as usize * 512;
    let mut image = table.write().expect("a GPT").into_inner();
    image[start..start + contents.len()].copy_from_slice(contents);
    image
}
