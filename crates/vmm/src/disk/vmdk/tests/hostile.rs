//! Headers and tables that somebody hostile has written.

use super::*;

const DIRECTORIES: &str = "its grain directory cannot be";

type Change = fn(&mut Built);

#[test]
fn each_field_that_is_wrong_is_refused() {
    const SIZE: &str = "its size cannot be";
    const GRAIN: &str = "its grain size cannot be";
    const TEXT: &str = "its descriptor cannot be";
    const PART: &str = "it is a part of a disk that another file describes";
    let cases: &[(Change, &str)] = &[
        (|image| image.put32(0, 0), "it is not a vmdk image"),
        (|image| image.0.clear(), "it is not a vmdk image"),
        (|image| image.put(0, b"COWD"), "it is a vmdk image of the kind COWD"),
        (
            |image| image.put(0, &[0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0]),
            "it is a vmdk image of the kind seSparse",
        ),
        (|image| image.put32(4, 0), "it is of version 0"),
        (|image| image.put32(4, 4), "it is of version 4"),
        (|image| image.put32(8, 0x13), "it has features that are not known here (flags 0x13)"),
        (|image| image.put32(8, 0x2_0003), "its compression (0) is not known here"),
        (|image| image.put(77, &[2, 0]), "its compression (2) is not known here"),
        (|image| image.put(77, &[1, 0]), "its compression (1) is not known here"),
        (
            |image| {
                image.put(77, &[1, 0]);
                image.put32(8, 0x1_0003);
            },
            "it has features that are not known here (flags 0x10003)",
        ),
        (|image| image.put(73, b"\n\n\r\n"), "its mark of line ends cannot be"),
        (|image| image.put64(20, 0), GRAIN),
        (|image| image.put64(20, 4), GRAIN),
        (|image| image.put64(20, 24), GRAIN),
        (|image| image.put64(20, 8192), GRAIN),
        (|image| image.put64(20, 1 << 63), GRAIN),
        (|image| image.put32(44, 0), "its size of grain tables cannot be"),
        (|image| image.put32(44, u32::MAX), "its size of grain tables cannot be"),
        (|image| image.put64(12, 0), SIZE),
        (|image| image.put64(12, u64::MAX), SIZE),
        (|image| image.put64(12, (1 << 32) + 1), SIZE),
        (|image| image.put64(64, 41), "its length cannot be"),
        (|image| image.put64(64, u64::MAX), "its length cannot be"),
        (|image| image.put64(28, 0), PART),
        (|image| image.put64(36, 0), PART),
        (|image| image.put64(28, u64::MAX), TEXT),
        (|image| image.put64(36, u64::MAX), TEXT),
        (|image| image.put64(36, 129), TEXT),
        (|image| image.put64(28, 21), TEXT),
        (|image| image.put(512, &[0; 512]), "it is a vmdk image of the kind "),
    ];
    for (index, (change, line)) in cases.iter().enumerate() {
        let mut image = Built::sparse();
        change(&mut image);

        for writable in [true, false] {
            assert_eq!(image.open(writable).unwrap_err(), *line, "{index}");
        }
    }
}

#[test]
fn tables_lie_in_the_file_and_in_one_place_each() {
    // In what is read, then in what only an image that is written needs.
    let read: &[Change] = &[
        |image| image.put64(56, 0),
        |image| image.put64(56, TEXT),
        |image| image.put64(56, GRAINS),
        |image| image.put64(56, u64::MAX - 1),
        |image| image.put64(56, 1 << 55),
        |image| image.put64(12, 1 << 32),
        |image| image.put32(30 * 512, 1),
        |image| image.put32(30 * 512, u32::MAX),
        |image| image.put32(30 * 512, 37),
        |image| image.put32(30 * 512, 30),
        |image| image.put32(30 * 512, 32),
        |image| image.put32(30 * 512 + 4, 31),
    ];
    let written: &[Change] = &[
        |image| image.put64(48, 0),
        |image| image.put64(48, u64::MAX),
        |image| image.put64(48, DIRECTORY),
        |image| image.put32(21 * 512, 0),
        |image| image.put32(21 * 512, 31),
        |image| image.put32(30 * 512, 0),
        |image| image.put64(64, 38),
        |image| image.put64(64, 0),
    ];
    for (changes, fails_read) in [(read, true), (written, false)] {
        for (index, change) in changes.iter().enumerate() {
            let mut image = Built::sparse();
            change(&mut image);

            assert_eq!(image.open(true).unwrap_err(), DIRECTORIES, "{fails_read} {index}");
            assert_eq!(image.open(false).is_err(), fails_read, "{fails_read} {index}");
        }
    }
}

#[test]
fn a_table_that_is_not_there_is_zeros_in_what_is_read() {
    let mut image = Built::sparse();
    image.put32((DIRECTORY * SECTOR) as usize, 0);

    let mut disk = image.open(false).unwrap();

    assert!(contents(&mut disk).iter().all(|&byte| byte == 0));
}

#[test]
fn a_grain_among_the_tables_or_out_of_the_file_is_neither_read_nor_written() {
    // In the header without grains of zeros, in a table, before its place, out of the file.
    for entry in [1, DIRECTORY as u32 + 1, GRAINS as u32 - 1, GRAINS as u32 + 1, u32::MAX] {
        let mut image = Built::sparse();
        image.entry(0, entry);
        image.0.extend([7; GRAIN as usize]);
        let file = image.file();
        let mut disk = open(&file);

        assert!(disk.read(0, &mut [0; 512]).is_err(), "{entry}");
        assert!(disk.write(0, &[1; 512]).is_err(), "{entry}");
        assert!(disk.discard(0, 512).is_err(), "{entry}");
        disk.flush().unwrap();
        // But for the ID of its contents.
        assert!(bytes_of(&file)[1024..] == image.0[1024..], "{entry}");
        disk.write(GRAIN, &[1; 512]).unwrap();
    }
}

#[test]
fn a_file_grows_no_further_than_an_entry_reaches() {
    let mut image = Built::sparse();
    image.entry(1, GRAINS as u32);
    let file = image.file();
    // The last byte that an entry can name is of 2 TiB.
    file.set_len(2 << 40).unwrap();
    let mut disk = open(&file);

    let error = disk.write(0, &[1; 512]).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    disk.write(GRAIN, &[1; 512]).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 40);
}
