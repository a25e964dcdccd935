//! The disk on which GRUB itself and Cloister run the scripts of the oracle's table. `cargo xtask
//! grub-oracle` compiles this file too, so that both read the same bytes.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use gpt::partition_types::{EFI, LINUX_FS, Type};

/// Bytes of a block of the ext4 file systems.
const BLOCK: usize = 4096;
/// What the blocks of the file begin with that a script is put into.
const MARKS: [&[u8]; 2] = [b"# the script's first block\n", b"# the script's second block\n"];
/// Sectors of 512 bytes.
const SECTOR: usize = 512;
/// Seconds since 1970 of a file that is not older than another on purpose.
const MTIME: u64 = 1_700_000_000;

/// Code of the disk's kernels: it writes `#BOOT`, its command line, the size of its initial RAM disk
/// and a hash of that to the first serial port, and ends QEMU by its debug-exit device.
///
/// ```text
///     mov ebx, esi                  ; boot parameters
///     call start
///     db 10, "#BOOT ", 0
/// start:
///     pop esi
///     call puts
///     mov esi, [ebx + 228h]         ; command line
///     call puts
///     call bar
///     mov eax, [ebx + 21Ch]         ; size of the initial RAM disk
///     call hex
///     call bar
///     mov ecx, [ebx + 21Ch]
///     mov esi, [ebx + 218h]
///     xor edx, edx
///     xor eax, eax
/// sum:
///     jecxz done
///     lodsb
///     rol edx, 5
///     add edx, eax
///     dec ecx
///     jmp sum
/// done:
///     mov eax, edx
///     call hex
///     mov al, 10
///     call putc
///     mov dx, 0F4h
///     out dx, al
/// halt:
///     hlt
///     jmp halt
/// bar:
///     mov al, '|'
/// putc:
///     push edx
///     mov dx, 3F8h
///     out dx, al
///     pop edx
///     ret
/// puts:
///     lodsb
///     test al, al
///     jz end
///     call putc
///     jmp puts
/// end:
///     ret
/// hex:
///     mov ecx, 8
/// digit:
///     rol eax, 4
///     push eax
///     and al, 15
///     cmp al, 10
///     sbb al, 69h
///     das
///     call putc
///     pop eax
///     loop digit
///     ret
/// ```
pub(super) const CODE: &[u8] = b"\
    \x89\xf3\xe8\x08\x00\x00\x00\x0a#BOOT \x00\x5e\xe8\x5b\x00\x00\x00\x8b\xb3\x28\x02\x00\x00\
    \xe8\x50\x00\x00\x00\xe8\x41\x00\x00\x00\x8b\x83\x1c\x02\x00\x00\xe8\x4d\x00\x00\x00\xe8\x31\
    \x00\x00\x00\x8b\x8b\x1c\x02\x00\x00\x8b\xb3\x18\x02\x00\x00\x31\xd2\x31\xc0\xe3\x09\xac\xc1\
    \xc2\x05\x01\xc2\x49\xeb\xf5\x89\xd0\xe8\x26\x00\x00\x00\xb0\x0a\xe8\x0a\x00\x00\x00\x66\xba\
    \xf4\x00\xee\xf4\xeb\xfd\xb0\x7c\x52\x66\xba\xf8\x03\xee\x5a\xc3\xac\x84\xc0\x74\x07\xe8\xee\
    \xff\xff\xff\xeb\xf4\xc3\xb9\x08\x00\x00\x00\xc1\xc0\x04\x50\x24\x0f\x3c\x0a\x1c\x69\x2f\xe8\
    \xd6\xff\xff\xff\x58\xe2\xed\xc3";

/// Another configuration, without a menu.
const OTHER: &[u8] = b"echo \"@ other $a $b $# $1\"\nset a=other\nset c=other\n";
/// Another configuration, with a menu.
const MENU: &[u8] = b"echo \"@ menu $a $b\"\nset timeout=0\n\
    menuentry 'In the menu' --id inner { linux /boot/k-6.7 menu $a $b; }\n\
    menuentry 'Second' { linux /boot/k-6.8 second $a $b; }\n";
/// One whose third line is none.
const BROKEN: &[u8] = b"echo \"@ before\"\nset a=1\nif true then\necho \"@ after $a\"\n";
/// The variables of the environment block.
const ENVIRONMENT: &[u8] = b"# GRUB Environment Block\nsaved_entry=second\nkernelopts=root=/dev/x \
    ro\nslashed=a\\\\b\nempty=\n";

/// What is on the second partition, `hd0,gpt2`: GRUB's root.
fn boot_files(kernel: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut slot = vec![b'\n'; BLOCK * MARKS.len()];
    for (block, mark) in slot.chunks_mut(BLOCK).zip(MARKS) {
        block[..mark.len()].copy_from_slice(mark);
    }
    let mut environment = ENVIRONMENT.to_vec();
    environment.resize(1024, b'#');
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("boot/grub/grub.cfg", slot),
        ("boot/grub/grubenv", environment.clone()),
        ("boot/grub/other.cfg", OTHER.to_vec()),
        ("boot/grub/menu.cfg", MENU.to_vec()),
        ("boot/grub/broken.cfg", BROKEN.to_vec()),
        ("boot/env2", environment),
        ("boot/k-6.7", kernel.to_vec()),
        ("boot/k-6.8", kernel.to_vec()),
        ("boot/k-6.10", kernel.to_vec()),
        ("boot/i1", text("first")),
        ("boot/i2", text("the second")),
        ("boot/empty", Vec::new()),
        ("boot/older", text("x")),
        ("boot/newer", text("x")),
        ("boot/two words", text("x")),
        ("boot/dir/one.conf", text("1")),
        ("boot/dir/two.conf", text("2")),
        ("boot/dir/deep/file", text("3")),
        ("boot/link", text("-> k-6.8")),
        ("boot/dirlink", text("-> dir")),
        ("boot/dangling", text("-> none")),
        ("both", text("x")),
    ]
}

/// The third partition, `hd0,gpt3`.
fn data_files(kernel: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![("data-file", b"x".to_vec()), ("both", b"x".to_vec()), ("k", kernel.to_vec())]
}

/// The first, a FAT file system.
const ESP_FILES: [(&str, &[u8]); 2] = [("esp-file", b"x"), ("Mixed.Case", b"x")];

/// The disk, whose script is still to be put in. `kernel` is a bzImage around [`CODE`].
pub(super) fn image(scratch: &Path, kernel: &[u8]) -> Vec<u8> {
    let boot = "11111111-2222-3333-4444-555555555555";
    let data = "22222222-2222-3333-4444-555555555555";
    let partitions: [(Type, Vec<u8>); 3] = [
        (EFI, esp()),
        (LINUX_FS, ext4(scratch, "boot", boot, &boot_files(kernel))),
        (LINUX_FS, ext4(scratch, "data", data, &data_files(kernel))),
    ];
    let contents: usize = partitions.iter().map(|(_, bytes)| bytes.len() + (2 << 20)).sum();
    let device = Cursor::new(vec![0; contents]);
    let mut table = gpt::GptConfig::new().writable(true).create_from_device(device, None).unwrap();
    let mut starts = Vec::new();
    for (kind, bytes) in &partitions {
        let id = table.add_partition("", bytes.len() as u64, kind.clone(), 0, None).unwrap();
        starts.push(table.partitions()[&id].first_lba as usize * SECTOR);
    }
    let mut image = table.write().unwrap().into_inner();
    // As every partitioned disk has it: without it GRUB sees no table at all.
    let last = u32::try_from(image.len() / SECTOR - 1).unwrap().to_le_bytes();
    image[446..462]
        .copy_from_slice(&[&[0, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0], &last[..]].concat());
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (start, (_, bytes)) in starts.into_iter().zip(&partitions) {
        image[start..start + bytes.len()].copy_from_slice(bytes);
    }
    image
}

/// Puts a script in its place, `/boot/grub/grub.cfg`.
pub(super) fn put_script(image: &mut [u8], script: &str) {
    let room = BLOCK * MARKS.len();
    assert!(script.len() + 3 < room, "a script has {} bytes", script.len());
    // One comment is read faster than as many empty lines.
    let mut slot = format!("{script}\n#").into_bytes();
    slot.resize(room - 1, b'.');
    slot.push(b'\n');
    for (contents, mark) in slot.chunks(BLOCK).zip(MARKS) {
        let at = image.chunks(SECTOR).position(|sector| sector.starts_with(mark)).unwrap() * SECTOR;
        image[at..at + BLOCK].copy_from_slice(contents);
    }
}

/// A FAT file system made by the `fatfs` crate.
fn esp() -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat16)
        .bytes_per_cluster(512)
        .volume_id(0x1234_abcd)
        .volume_label(*b"ESP        ");
    fatfs::format_volume(Cursor::new(&mut bytes[..]), options).unwrap();
    let system =
        fatfs::FileSystem::new(Cursor::new(&mut bytes[..]), fatfs::FsOptions::new()).unwrap();
    for (name, contents) in ESP_FILES {
        system.root_dir().create_file(name).unwrap().write_all(contents).unwrap();
    }
    drop(system);
    bytes
}

/// An ext4 file system made by `mke2fs`; contents of `-> x` make a symbolic link.
fn ext4(scratch: &Path, label: &str, uuid: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let root = scratch.join(label);
    let image = scratch.join(format!("{label}.image"));
    for (path, contents) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = contents.strip_prefix(b"-> ") {
            std::os::unix::fs::symlink(std::str::from_utf8(target).unwrap(), path).unwrap();
            continue;
        }
        fs::write(&path, contents).unwrap();
        let age = if path.ends_with("older") { 100 } else { 0 };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME - age);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    let made = Command::new("mke2fs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal"])
        .args(["-L", label, "-U", uuid, "-E", "hash_seed=11111111-2222-3333-4444-555555555555"])
        .arg("-d")
        .args([&root, &image])
        .arg("4M")
        .output()
        .expect("the disk needs mke2fs of e2fsprogs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read(image).unwrap()
}
