//! Disks that are booted from: what a guest writes on its own disk, the host reads at the next boot.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use cloister_boot::find_on_disk;

use super::image::{self, ROOM, Slot};
use super::{Bytes, file};

/// Bounds the initial RAM disk.
const LOW_RAM: u64 = 64 << 20;
/// What separates the files of an input.
const SEPARATOR: u8 = 0xff;
/// What the disks of [`disk`] say to boot.
const CONFIG: &[u8] = b"search --set=root --file /k\nmenuentry a {\n linux /k quiet\n}\n";

/// A disk, in a file that is changed and then put right again.
struct Disk {
    file: File,
    contents: Vec<u8>,
}

impl Disk {
    fn new(contents: Vec<u8>) -> Self {
        let file = file("disk");
        file.write_all_at(&contents, 0).expect("a file in memory");
        Self { file, contents }
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.file.write_all_at(bytes, at as u64).expect("a file in memory");
    }

    /// Makes the bytes from `at` what they were.
    fn restore(&self, at: usize, len: usize) {
        self.write(at, &self.contents[at..at + len]);
    }

    /// Boots from it, which must end; returns whether there is a kernel.
    fn boot(&self) -> bool {
        let file = Arc::new(self.file.try_clone().expect("a file"));
        match find_on_disk(file, self.contents.len() as u64, LOW_RAM) {
            Ok(_) => true,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                false
            }
        }
    }
}

/// Whole disks of which the bytes change some: no table, an MBR or a GPT, with FAT or ext4; or a
/// disk that is nothing but the bytes.
pub(crate) fn disk(data: &[u8]) {
    static DISKS: OnceLock<Vec<Disk>> = OnceLock::new();
    let disks = DISKS.get_or_init(|| {
        let (mut fat, slots) = image::fat(&["boot/grub/grub.cfg"]);
        put(&mut fat, slots[0], CONFIG);
        let mut systems = vec![fat];
        systems.extend(image::ext4(CONFIG));
        let tables = [<[u8]>::to_vec, image::mbr, image::gpt];
        let disk = |system: &Vec<u8>| tables.map(|table| Disk::new(table(system)));
        let disks: Vec<Disk> = systems.iter().flat_map(disk).collect();
        for disk in &disks {
            assert!(disk.boot(), "a disk that nothing has changed boots");
        }
        disks
    });

    let mut bytes = Bytes(data);
    let Some(disk) = disks.get(usize::from(bytes.u8()) % (disks.len() + 1)) else {
        Disk::new(bytes.0.to_vec()).boot();
        return;
    };
    let mut changed = Vec::new();
    while !bytes.is_empty() {
        let at = (usize::from(bytes.u16()) | usize::from(bytes.u8()) << 16) % disk.contents.len();
        disk.write(at, &[bytes.u8()]);
        changed.push(at);
    }
    disk.boot();
    changed.into_iter().for_each(|at| disk.restore(at, 1));
}

/// A file's contents, in an image in memory.
fn put(image: &mut [u8], slot: Slot, contents: &[u8]) {
    image[slot.size..slot.size + 4].copy_from_slice(&(contents.len() as u32).to_le_bytes());
    image[slot.contents..slot.contents + contents.len()].copy_from_slice(contents);
}

/// Boots from a disk whose files the bytes are, one after the other.
fn with_files(disk: &OnceLock<(Disk, Vec<Slot>)>, paths: &[&str], data: &[u8]) {
    let (disk, slots) = disk.get_or_init(|| {
        let (image, slots) = image::fat(paths);
        (Disk::new(image), slots)
    });
    let mut contents = data.splitn(slots.len(), |&byte| byte == SEPARATOR);
    for slot in slots {
        let contents = contents.next().unwrap_or_default();
        let contents = &contents[..contents.len().min(ROOM)];
        disk.write(slot.size, &(contents.len() as u32).to_le_bytes());
        disk.write(slot.contents, contents);
    }
    disk.boot();
}

/// GRUB's configuration, its environment block, a second configuration and a boot entry.
pub(crate) fn grub(data: &[u8]) {
    static DISK: OnceLock<(Disk, Vec<Slot>)> = OnceLock::new();
    let paths =
        ["boot/grub/grub.cfg", "boot/grub/grubenv", "boot/grub/b.cfg", "loader/entries/a.conf"];
    with_files(&DISK, &paths, data);
}

/// Two boot entries and the file that chooses between them.
pub(crate) fn boot_entries(data: &[u8]) {
    static DISK: OnceLock<(Disk, Vec<Slot>)> = OnceLock::new();
    let paths = ["loader/entries/a+3-1.conf", "loader/entries/b.conf", "loader/loader.conf"];
    with_files(&DISK, &paths, data);
}
