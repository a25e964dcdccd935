//! VMDK images next to plain bytes. (That QEMU finds them sound, the guest tests show.)

mod hostile;
mod streamed;

use proptest::prelude::*;

use super::*;
use crate::disk::qcow2::Layered;
use crate::disk::testing::{Change, change_both, changes, contents, memory};

/// Bytes of a grain: the fewest.
const GRAIN: u64 = 4096;
/// Bytes of the disks: two tables, and not whole grains.
const SIZE: u64 = GRAIN * 515 + 3 * SECTOR;
/// Sectors of an image's parts: text, directory and tables of the copies, then those that are read.
const TEXT: u64 = 1;
const COPIES: u64 = 21;
const DIRECTORY: u64 = 30;
/// Where grains begin.
const GRAINS: u64 = 40;

/// An image's bytes.
#[derive(Clone)]
struct Built(Vec<u8>);

impl Built {
    /// An image without grains, in a version and with flags.
    fn new(version: u32, flags: u32) -> Self {
        let mut built = Self(vec![0; (GRAINS * SECTOR) as usize]);
        built.put(0, b"KDMV");
        for (at, value) in [(4, version), (8, flags), (44, 512)] {
            built.put32(at, value);
        }
        for (at, value) in [
            (12, SIZE / SECTOR),
            (20, GRAIN / SECTOR),
            (28, TEXT),
            (36, 20),
            (48, COPIES),
            (56, DIRECTORY),
            (64, GRAINS),
        ] {
            built.put64(at, value);
        }
        built.put(73, b"\n \r\n");
        let text = "# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\n\
                    createType=\"monolithicSparse\"\nRW 4123 SPARSE \"disk.vmdk\"\n";
        built.put((TEXT * SECTOR) as usize, text.as_bytes());
        for directory in [COPIES, DIRECTORY] {
            for table in 0..2 {
                let at = directory * SECTOR + 4 * table;
                built.put32(at as usize, (directory + 1 + 4 * table) as u32);
            }
        }
        built
    }

    fn sparse() -> Self {
        Self::new(1, 3)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    /// Sets a grain's entry in the tables that are read.
    fn entry(&mut self, grain: u64, value: u32) {
        self.put32(((DIRECTORY + 1) * SECTOR + 4 * grain) as usize, value);
    }

    fn file(&self) -> File {
        let file = memory();
        file.write_all_at(&self.0, 0).unwrap();
        file
    }

    fn open(&self, writable: bool) -> Result<Vmdk, String> {
        Vmdk::open(self.file(), writable).map_err(|error| error.to_string())
    }
}

fn open(file: &File) -> Vmdk {
    Vmdk::open(file.try_clone().unwrap(), true).unwrap()
}

fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn kind() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => any::<u8>().prop_map(Change::Write),
        1 => Just(Change::Discard),
        2 => any::<bool>().prop_map(|unmap| Change::Zero { unmap }),
        1 => Just(Change::Flush),
        1 => Just(Change::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_image_holds_what_a_plain_disk_holds(
        changes in changes(kind(), SIZE),
    ) {
        let file = Built::sparse().file();
        let mut disk = open(&file);
        let mut plain = vec![0; SIZE as usize];

        for change in changes {
            let done = change_both(&mut disk, &mut plain, change);
            match (change, done) {
                ((Change::Reopen, ..), _) => {
                    disk.write_back().unwrap();
                    disk = open(&file);
                }
                // Zeros that stay allocated, not every file system can make.
                ((Change::Zero { .. }, offset, len), Err(_)) => {
                    change_both(&mut disk, &mut plain, (Change::Write(0), offset, len)).unwrap();
                }
                (_, done) => done.unwrap(),
            }
        }

        prop_assert!(contents(&mut disk) == plain);
        disk.write_back().unwrap();
        prop_assert!(file.metadata().unwrap().len() <= disk.largest_file());
        prop_assert!(contents(&mut open(&file)) == plain);
        // Both copies of the tables say the same.
        let bytes = bytes_of(&file);
        let tables = |directory: u64| {
            let start = ((directory + 1) * SECTOR) as usize;
            &bytes[start..start + 4096]
        };
        prop_assert!(tables(COPIES) == tables(DIRECTORY));
    }
}

#[test]
fn a_disk_that_was_never_written_is_zeros_and_takes_no_room_by_zeros() {
    let file = Built::sparse().file();
    let mut disk = open(&file);

    disk.discard(0, SIZE).unwrap();
    disk.write_zeroes(512, SIZE - 1024, false).unwrap();
    disk.flush().unwrap();

    assert_eq!((disk.len(), disk.discard_alignment()), (SIZE, 4096));
    assert!(contents(&mut disk).iter().all(|&byte| byte == 0));
    assert_eq!(file.metadata().unwrap().len(), GRAINS * SECTOR);
}

#[test]
fn a_machine_that_is_killed_leaves_what_was_flushed_and_no_grain_that_is_not_there() {
    let file = Built::sparse().file();
    let mut disk = open(&file);
    disk.write(GRAIN + 512, &[1; 512]).unwrap();
    disk.flush().unwrap();
    disk.write(GRAIN, &[2; 512]).unwrap();
    disk.write(3 * GRAIN, &[3; 4096]).unwrap();

    drop(disk);

    let mut left = open(&file);
    let left = contents(&mut left);
    // In place; the new grain's entry was never written.
    let grain = GRAIN as usize;
    assert_eq!(left[grain..grain + 1536], [[2; 512], [1; 512], [0; 512]].concat());
    assert!(left[3 * grain..4 * grain].iter().all(|&byte| byte == 0));
}

#[test]
fn discards_are_holes_and_later_writes_take_the_same_room() {
    let file = Built::sparse().file();
    let mut disk = open(&file);
    let mut sizes = Vec::new();
    for round in 0..4 {
        disk.write(0, &[round | 1; 16 * 4096]).unwrap();
        disk.discard(4096 - 512, 8 * 4096).unwrap();
        disk.flush().unwrap();
        sizes.push(file.metadata().unwrap().len());

        let bytes = contents(&mut disk);
        assert!(bytes[..4096 - 512].iter().all(|&byte| byte == round | 1));
        assert!(bytes[4096 - 512..9 * 4096 - 512].iter().all(|&byte| byte == 0));
        assert!(bytes[9 * 4096 - 512..16 * 4096].iter().all(|&byte| byte == round | 1));
    }
    assert_eq!(sizes, [sizes[0]; 4]);
}

#[test]
fn the_first_change_gives_the_contents_a_new_id() {
    let file = Built::sparse().file();
    let cid = |file: &File| {
        let bytes = bytes_of(file);
        let text = String::from_utf8_lossy(&bytes[512..1024]).into_owned();
        text.lines().find_map(|line| line.strip_prefix("CID=")).unwrap().to_owned()
    };
    let mut disk = open(&file);
    assert_eq!(contents(&mut disk).len() as u64, SIZE);
    assert_eq!(cid(&file), "0badcafe");

    disk.discard(0, 4096).unwrap();
    let first = cid(&file);
    disk.write(0, &[1; 512]).unwrap();

    assert_ne!(first, "0badcafe");
    assert!(first.len() == 8 && u32::from_str_radix(&first, 16).unwrap() < 1 << 31);
    assert_eq!(cid(&file), first);
}

#[test]
fn grains_of_zeros_are_zeros_and_are_written() {
    let mut image = Built::new(2, 7);
    image.entry(1, ZERO_GRAIN);
    let file = image.file();
    let mut disk = open(&file);
    assert!(contents(&mut disk).iter().all(|&byte| byte == 0));

    disk.write(GRAIN + 1024, &[5; 512]).unwrap();
    disk.write_back().unwrap();

    let bytes = contents(&mut open(&file));
    let grain = GRAIN as usize;
    assert_eq!(bytes[grain..grain + 2048], [[0; 512], [0; 512], [5; 512], [0; 512]].concat());
}

#[test]
fn the_last_grain_of_a_file_may_be_cut_short() {
    let mut image = Built::sparse();
    image.entry(0, GRAINS as u32);
    image.0.extend([7; 512]);
    let file = image.file();
    let mut disk = open(&file);

    let bytes = contents(&mut disk);
    assert!(bytes[..512] == [7; 512] && bytes[512..].iter().all(|&byte| byte == 0));

    disk.write(GRAIN - 512, &[8; 1024]).unwrap();
    disk.write_back().unwrap();

    let bytes = contents(&mut open(&file));
    assert_eq!((bytes[0], bytes[512], bytes[4095], bytes[4096], bytes[4608]), (7, 0, 8, 8, 0));
}

#[test]
fn layers_lie_over_an_image_and_leave_it_alone() {
    let file = Built::sparse().file();
    let mut disk = open(&file);
    disk.write(512, &[7; 8192]).unwrap();
    disk.write_back().unwrap();
    let before = bytes_of(&file);

    let base = Vmdk::open(file.try_clone().unwrap(), false).unwrap();
    let mut over = Layered::vmdk(base).unwrap().under(memory()).unwrap();
    over.write(1024, &[9; 512]).unwrap();
    over.write(SIZE - 512, &[9; 512]).unwrap();
    over.flush().unwrap();

    let bytes = contents(&mut over);
    assert_eq!((bytes[511], bytes[512], bytes[1024], bytes[1536]), (0, 7, 9, 7));
    assert_eq!((bytes[8703], bytes[8704], bytes[SIZE as usize - 1]), (7, 0, 9));
    assert!(bytes_of(&file) == before);
}

#[test]
fn an_image_that_is_only_read_is_not_written() {
    let mut disk = Built::sparse().open(false).unwrap();

    for result in [disk.write(0, &[1; 512]), disk.discard(0, 512), disk.write_zeroes(0, 512, true)]
    {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    disk.flush().unwrap();
}
