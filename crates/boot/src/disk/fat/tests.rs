use std::io::{Cursor, Write};

use fatfs::{FatType, FormatVolumeOptions, FsOptions};
use proptest::prelude::*;

use super::super::filesystem::{FileError, FileSystem, Kind};
use super::super::region::Region;
use super::Fat;

/// A file system made by the `fatfs` crate.
pub(in super::super) fn fat(kind: FatType, files: &[(&str, &[u8])]) -> Vec<u8> {
    let size = match kind {
        FatType::Fat12 => 1 << 20,
        FatType::Fat16 => 16 << 20,
        FatType::Fat32 => 40 << 20,
    };
    let mut bytes = vec![0; size];
    let options = FormatVolumeOptions::new()
        .fat_type(kind)
        .bytes_per_cluster(512)
        .volume_id(0x1234_abcd)
        .volume_label(*b"BOOTFILES  ");
    fatfs::format_volume(Cursor::new(&mut bytes[..]), options).unwrap();
    {
        let system = fatfs::FileSystem::new(Cursor::new(&mut bytes[..]), FsOptions::new()).unwrap();
        for (path, contents) in files {
            let mut directory = system.root_dir();
            let mut names = path.trim_start_matches('/').split('/').peekable();
            while let Some(name) = names.next() {
                if names.peek().is_some() {
                    directory = directory.create_dir(name).unwrap();
                } else {
                    directory.create_file(name).unwrap().write_all(contents).unwrap();
                }
            }
        }
    }
    bytes
}

const KINDS: [FatType; 3] = [FatType::Fat12, FatType::Fat16, FatType::Fat32];

#[test]
fn files_of_all_three_widths_are_read_back() {
    let contents: Vec<u8> = (0..100_000_u32).map(|value| (value * 7) as u8).collect();
    let long = "/loader/entries/a machine's entry with a long name.conf";
    for kind in KINDS {
        let image = fat(kind, &[("/EFI/debian/grub.cfg", b"x"), (long, &contents)]);

        let system = Fat::open(&Region::of(image)).unwrap();

        assert_eq!(system.read(long, 1 << 20).unwrap(), contents, "{kind:?}");
        assert_eq!(system.read("/efi/DEBIAN/Grub.CFG", 10).unwrap(), b"x");
        assert_eq!(system.kind(long).unwrap(), Kind::File(100_000));
        assert_eq!(system.kind("/EFI").unwrap(), Kind::Directory);
        assert_eq!(system.kind("/").unwrap(), Kind::Directory);
        assert_eq!(
            system.list("/loader/entries").unwrap(),
            ["a machine's entry with a long name.conf"]
        );
        assert_eq!((&*system.uuid(), &*system.label()), ("1234-ABCD", "BOOTFILES"));
    }
}

#[test]
fn a_directory_of_many_entries_is_a_chain() {
    let names: Vec<String> = (0..100).map(|n| format!("/entries/number {n}.conf")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b"y"[..])).collect();
    for kind in KINDS {
        let system = Fat::open(&Region::of(fat(kind, &files))).unwrap();

        assert_eq!(system.list("/entries").unwrap().len(), 100, "{kind:?}");
        assert_eq!(system.read("/entries/number 99.conf", 1).unwrap(), b"y");
    }
}

#[test]
fn what_is_not_there_or_too_large_says_so() {
    let image = fat(FatType::Fat16, &[("/dir/file", b"12345")]);
    let system = Fat::open(&Region::of(image)).unwrap();

    assert!(matches!(system.read("/none", 9), Err(FileError::NotFound)));
    assert!(matches!(system.read("/dir/file/x", 9), Err(FileError::NotFound)));
    assert!(matches!(system.read("/dir", 9), Err(FileError::WrongKind)));
    assert!(matches!(system.list("/dir/file"), Err(FileError::WrongKind)));
    assert!(matches!(system.read("/dir/file", 4), Err(FileError::TooLarge { size: 5, limit: 4 })));
}

#[test]
fn other_boot_sectors_are_no_fat() {
    let mut mbr = vec![0; 1 << 16];
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);

    assert!(Fat::open(&Region::of(mbr)).is_none());
    assert!(Fat::open(&Region::of(vec![0; 100])).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn changed_file_systems_never_panic(
        kind in 0_usize..3,
        sector in prop::collection::vec((0_usize..512, any::<u8>()), 0..6),
        table in prop::collection::vec((512_usize..4096, any::<u8>()), 0..30),
        data in prop::collection::vec((0_usize..1 << 20, any::<u8>()), 0..200),
    ) {
        let mut image = fat(KINDS[kind], &[("/loader/entries/one entry.conf", &[7; 9000])]);
        for (at, value) in sector.into_iter().chain(table).chain(data) {
            image[at] = value;
        }

        if let Some(system) = Fat::open(&Region::of(image)) {
            let _ = (system.label(), system.list("/"), system.list("/loader/entries"));
            let _ = system.read("/loader/entries/one entry.conf", 1 << 20);
        }
    }
}
