//! qcow2 images next to plain bytes. (That QEMU finds them sound, the guest tests show.)

use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::*;
use crate::disk::testing::{Change, change_both, changes, contents, memory};

/// Bytes of the disks: not whole clusters.
const SIZE: u64 = (1 << 20) + 512 * 3;

/// An empty image with clusters of this size.
fn image(cluster: usize) -> File {
    let file = memory();
    let made = Qcow2::<Storage>::create_builder(storage(file.try_clone().unwrap()).unwrap())
        .size(SIZE)
        .cluster_size(cluster);
    let open = |file| Ok(Qcow2::builder(file).backing(None).write(true));
    drop(FormatAccess::new(made.create_open(DenyImplicitOpenGate::default(), open).unwrap()));
    file
}

fn open(file: &File, base: Option<Layered>) -> Layered {
    let header = Header::judge(file, true).unwrap();
    Unbased::open(file.try_clone().unwrap(), &header, true).unwrap().on(base)
}

/// A file of [`SIZE`] bytes that differ.
fn base() -> (File, Vec<u8>) {
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at / 7 % 251) as u8 | 1).collect();
    let file = memory();
    file.write_all_at(&bytes, 0).unwrap();
    (file, bytes)
}

fn kind() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => any::<u8>().prop_map(Change::Write),
        2 => any::<bool>().prop_map(|unmap| Change::Zero { unmap }),
        1 => Just(Change::Flush),
        1 => Just(Change::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_image_holds_what_a_plain_disk_holds(
        bits in 9..=16_u32,
        on_base: bool,
        changes in changes(kind(), SIZE),
    ) {
        let file = image(1 << bits);
        let (base_file, base_bytes) = base();
        let stack = || {
            let base = on_base.then(|| Layered::raw(base_file.try_clone().unwrap()).unwrap());
            open(&file, base)
        };
        let mut disk = stack();
        let mut plain = if on_base { base_bytes.clone() } else { vec![0; SIZE as usize] };

        for change in changes {
            change_both(&mut disk, &mut plain, change).unwrap();
            if let (Change::Reopen, ..) = change {
                disk.write_back().unwrap();
                disk = stack();
            }
        }

        prop_assert!(contents(&mut disk) == plain);
        drop(disk);
        prop_assert!(contents(&mut stack()) == plain);
        // The base is only read.
        let mut left = vec![0; SIZE as usize];
        base_file.read_exact_at(&mut left, 0).unwrap();
        prop_assert!(left == base_bytes);
    }
}

#[test]
fn whole_clusters_that_are_discarded_read_as_zeros_and_their_room_is_used_again() {
    let file = image(4096);
    let mut disk = open(&file, None);
    let cluster = |disk: &mut Layered, at: u64| {
        let mut bytes = [0; 4096];
        disk.read(at * 4096, &mut bytes).unwrap();
        bytes
    };
    let mut sizes = Vec::new();
    for round in 0..20 {
        disk.write(0, &[round | 1; 16 * 4096]).unwrap();
        disk.discard(4096 - 512, 8 * 4096).unwrap();
        disk.flush().unwrap();
        sizes.push(file.metadata().unwrap().len());

        // The parts of clusters at its ends stay.
        assert_eq!(cluster(&mut disk, 0), [round | 1; 4096]);
        assert!((1..8).all(|at| cluster(&mut disk, at) == [0; 4096]));
        assert_eq!(cluster(&mut disk, 8), [round | 1; 4096]);
    }
    assert_eq!(sizes[1], sizes[19], "{sizes:?}");
}

#[test]
fn zeros_and_discards_of_what_was_never_written_take_no_room() {
    let file = image(4096);
    let mut disk = open(&file, None);
    let before = file.metadata().unwrap().len();

    disk.discard(0, SIZE).unwrap();
    disk.write_zeroes(512, SIZE - 1024, false).unwrap();
    disk.flush().unwrap();

    assert_eq!(file.metadata().unwrap().len(), before);
}

#[test]
fn zeros_in_an_image_hide_what_it_is_based_on() {
    let file = image(4096);
    let (base_file, bytes) = base();
    let mut disk = open(&file, Some(Layered::raw(base_file).unwrap()));

    disk.discard(4096, 4096).unwrap();
    disk.write_zeroes(2 * 4096, 1024, true).unwrap();

    let mut expected = bytes;
    expected[4096..2 * 4096 + 1024].fill(0);
    assert!(contents(&mut disk) == expected);
}

#[test]
fn a_temporary_layer_leaves_what_is_under_it_alone() {
    let file = image(4096);
    open(&file, None).write(0, &[7; 4096]).unwrap();
    let before = std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));

    let mut disk = open(&file, None).under(memory()).unwrap();
    disk.write(512, &[9; 512]).unwrap();
    disk.flush().unwrap();

    let mut start = [0; 1536];
    disk.read(0, &mut start).unwrap();
    assert_eq!((start[511], start[512], start[1024]), (7, 9, 7));
    assert_eq!((disk.len(), disk.discard_alignment()), (SIZE, CLUSTER));
    let after = std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    assert!(before.unwrap() == after.unwrap());
}
