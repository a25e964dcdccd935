use rustix::fs::{MemfdFlags, memfd_create};

use super::*;

/// An image of a disk of 1 MiB with clusters of 64 KiB: header, refcount table, refcounts, L1 table.
struct Built {
    bytes: Vec<u8>,
}

impl Built {
    fn new() -> Self {
        let mut built = Self { bytes: vec![0; 4 << 16] };
        for (at, value) in [
            (0, MAGIC),
            (4, 3),
            (20, 16),
            // Entries of the L1 table, and clusters of the refcount table.
            (36, 1),
            (56, 1),
            (96, 4),
            (100, 104),
        ] {
            built.put32(at, value);
        }
        for (at, value) in [(24, 1 << 20), (40, 3 << 16), (48, 1 << 16), (1 << 16, 2 << 16)] {
            built.put64(at, value);
        }
        built
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    fn put64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }

    fn judge(&self, writable: bool) -> Result<Header, String> {
        let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(&self.bytes, 0).unwrap();
        Header::judge(&file, writable).map_err(|error| error.to_string())
    }
}

#[test]
fn a_sound_header_says_the_clusters_and_how_large_the_file_may_become() {
    let header = Built::new().judge(true).unwrap();

    assert_eq!(header, Header { cluster: 1 << 16, size: 1 << 20, file: 4 << 16 });
    assert_eq!(header.largest_file(), (4 << 16) + (1 << 20) + (1 << 17));
}

#[test]
fn a_header_of_version_2_has_no_features() {
    let mut image = Built::new();
    image.put32(4, 2);
    image.put64(72, u64::MAX);

    assert!(image.judge(true).is_ok());
}

#[test]
fn each_field_that_is_wrong_is_refused() {
    const L1: &str = "its L1 table cannot be";
    const REFCOUNTS: &str = "its refcount table cannot be";
    const GAPS: &str = "its refcount table has gaps";
    type Change = fn(&mut Built);
    let cases: &[(Change, &str)] = &[
        (|image| image.put32(0, 0), "it is not a qcow2 image"),
        (|image| image.bytes.truncate(71), "it is not a qcow2 image"),
        (|image| image.bytes.truncate(103), "it is not a qcow2 image"),
        (|image| image.put32(4, 1), "it is of version 1"),
        (|image| image.put32(4, 4), "it is of version 4"),
        (|image| image.put32(32, 1), "it is encrypted"),
        (|image| image.put64(72, 1), "it was not closed properly"),
        (|image| image.put64(72, 3), "it is marked as corrupt"),
        (|image| image.put64(72, 4), "its contents are in another file"),
        (
            |image| image.put64(72, 0x18),
            "it has features that are not known here (incompatible_features 0x18)",
        ),
        (|image| image.put32(20, 8), "its cluster size cannot be"),
        (|image| image.put32(20, 22), "its cluster size cannot be"),
        (|image| image.put32(20, u32::MAX), "its cluster size cannot be"),
        (|image| image.put64(24, 0), "its size cannot be"),
        (|image| image.put64(24, u64::MAX), "its size cannot be"),
        // 512 MiB are what an entry is for.
        (|image| image.put64(24, (512 << 20) + 512), L1),
        (|image| image.put32(36, 0), L1),
        (|image| image.put32(36, u32::MAX), L1),
        (|image| image.put64(40, 0), L1),
        (|image| image.put64(40, 512), L1),
        (|image| image.put64(40, 4 << 16), L1),
        (|image| image.put64(40, u64::MAX << 16), L1),
        (|image| image.put32(56, 0), REFCOUNTS),
        (|image| image.put32(56, u32::MAX), REFCOUNTS),
        (|image| image.put64(48, 0), REFCOUNTS),
        (|image| image.put64(48, u64::MAX << 16), REFCOUNTS),
        // A block that is there twice, one out of the file, and one where no cluster begins.
        (|image| image.put64((1 << 16) + 8, 2 << 16), REFCOUNTS),
        (|image| image.put64((1 << 16) + 8, 4 << 16), REFCOUNTS),
        (|image| image.put64((1 << 16) + 8, (2 << 16) + 512), REFCOUNTS),
        // None for the header, and none between two.
        (|image| image.put64(1 << 16, 0), GAPS),
        (
            |image| {
                image.put64(1 << 16, 0);
                image.put64((1 << 16) + 8, 2 << 16);
            },
            GAPS,
        ),
        (|image| image.put64((1 << 16) + 16, 3 << 16), GAPS),
    ];
    for (index, (change, line)) in cases.iter().enumerate() {
        let mut image = Built::new();
        change(&mut image);

        assert_eq!(image.judge(true).unwrap_err(), *line, "{index}");
        // What is only read has no need of its refcounts.
        assert_eq!(image.judge(false).is_ok(), matches!(*line, REFCOUNTS | GAPS), "{index}");
    }
}
