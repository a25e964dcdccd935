//! virtio-blk as its driver sees it, on a file in memory.

use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;
use crate::virtio::driver::{Driver, Part, Used, WRITE, areas};

const SECTORS: u64 = 4096;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const IN: u32 = 0;
const OUT: u32 = 1;
const GET_ID: u32 = 8;
const DISCARD_REQUEST: u32 = 11;
const ZEROES_REQUEST: u32 = 13;

struct Bench {
    driver: Driver,
    file: File,
}

impl Bench {
    fn new(read_only: bool) -> Self {
        let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
        let contents: Vec<u8> = (0..SECTORS * SECTOR).map(pattern).collect();
        file.write_all_at(&contents, 0).unwrap();
        let disk = Block::from_file(file.try_clone().unwrap(), read_only, "cloister-0").unwrap();
        let features = disk.features();
        let mut driver = Driver::new(Box::new(disk));
        driver.start(features);
        Self { driver, file }
    }

    fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> Used {
        let header = header(kind, sector);
        let mut parts = vec![Part::Read(&header)];
        if !data.is_empty() {
            parts.push(Part::Read(data));
        }
        if room != 0 {
            parts.push(Part::Write(room));
        }
        parts.push(Part::Write(1));
        self.driver.request(0, &parts)
    }

    fn contents(&self, sector: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.file.read_exact_at(&mut data, sector * SECTOR).unwrap();
        data
    }
}

fn pattern(at: u64) -> u8 {
    (at / SECTOR * 7 + at % 253) as u8
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[0..4].copy_from_slice(&kind.to_le_bytes());
    header[8..16].copy_from_slice(&sector.to_le_bytes());
    header
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

fn status(used: &Used) -> u8 {
    *used.written.last().unwrap()
}

#[test]
fn configuration_has_the_capacity_and_the_limits() {
    let bench = Bench::new(false);

    let config = bench.driver.config(0, 60);

    assert_eq!(config[0..8], SECTORS.to_le_bytes());
    assert_eq!(config[12..16], 254_u32.to_le_bytes());
    assert_eq!(config[20..24], 512_u32.to_le_bytes());
    assert_eq!(bench.driver.config(60, 8), [0; 8]);
}

#[test]
fn read_gives_the_sectors_and_the_length() {
    let mut bench = Bench::new(false);

    let used = bench.request(IN, 3, &[], 1024);

    assert_eq!((status(&used), used.len), (OK, 1025));
    assert_eq!(used.written[..1024], bench.contents(3, 1024));
}

#[test]
fn long_read_over_many_odd_buffers_is_whole() {
    let mut bench = Bench::new(false);
    let header = header(IN, 0);
    let lens = [1, 511, 100_000, 7, 31_000, 65_536, 64_065];

    let mut parts = vec![Part::Read(&header[..5]), Part::Read(&header[5..])];
    parts.extend(lens.map(Part::Write));
    parts.push(Part::Write(1));
    let used = bench.driver.request(0, &parts);

    let len = lens.iter().sum::<u32>() as usize;
    assert_eq!(len % 512, 0);
    assert_eq!((status(&used), used.len), (OK, len as u32 + 1));
    assert_eq!(used.written[..len], bench.contents(0, len));
}

#[test]
fn write_reaches_the_file_and_nothing_else_changes() {
    let mut bench = Bench::new(false);
    let data = vec![0xa5; 200 * 512];

    let used = bench.request(OUT, 10, &data, 0);

    assert_eq!((status(&used), used.len), (OK, 1));
    assert_eq!(bench.contents(10, data.len()), data);
    assert_eq!(bench.contents(9, 512)[511], pattern(10 * SECTOR - 1));
    assert_eq!(bench.contents(210, 512)[0], pattern(210 * SECTOR));
}

#[test]
fn requests_past_the_end_or_of_parts_of_sectors_fail() {
    let mut bench = Bench::new(false);

    for (kind, sector, out, room) in [
        (IN, SECTORS, 0, 512),
        (IN, SECTORS - 1, 0, 1024),
        (IN, u64::MAX, 0, 512),
        (IN, u64::MAX / 512 + 1, 0, 512),
        (IN, 0, 0, 100),
        (OUT, SECTORS - 1, 1024, 0),
        (OUT, u64::MAX, 512, 0),
        (OUT, 0, 100, 0),
    ] {
        let used = bench.request(kind, sector, &vec![0; out], room);
        assert_eq!(status(&used), IOERR, "{kind} {sector} {out} {room}");
    }
    assert_eq!(status(&bench.request(IN, SECTORS - 1, &[], 512)), OK);
    assert!(!bench.driver.needs_reset());
}

#[test]
fn read_only_disk_says_so_and_refuses_writes() {
    let mut bench = Bench::new(true);

    assert_eq!(bench.driver.offered() >> 5 & 1, 1);
    assert_eq!(status(&bench.request(OUT, 0, &[0; 512], 0)), IOERR);
    assert_eq!(status(&bench.request(DISCARD_REQUEST, 0, &range(0, 1, 0), 0)), IOERR);
    assert_eq!(status(&bench.request(IN, 0, &[], 512)), OK);
    assert_eq!(bench.contents(0, 512)[0], pattern(0));
}

#[test]
fn flush_and_identity_answer_and_unknown_types_are_unsupported() {
    let mut bench = Bench::new(false);

    let flush = bench.request(4, 0, &[], 0);
    let identity = bench.request(GET_ID, 0, &[], 20);
    let unknown = bench.request(99, 0, &[], 512);

    assert_eq!((status(&flush), flush.len), (OK, 1));
    assert_eq!((status(&identity), identity.len), (OK, 21));
    assert_eq!(identity.written[..20], *b"cloister-0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(status(&unknown), UNSUPP);
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros() {
    for (kind, flags) in [(DISCARD_REQUEST, 0), (ZEROES_REQUEST, 0), (ZEROES_REQUEST, 1)] {
        let mut bench = Bench::new(false);
        let ranges = [range(8, 16, flags), range(64, 0, flags), range(100, 300, flags)].concat();

        let used = bench.request(kind, 0, &ranges, 0);

        assert_eq!(status(&used), OK, "{kind} {flags}");
        assert_eq!(bench.contents(8, 16 * 512), vec![0; 16 * 512]);
        assert_eq!(bench.contents(100, 300 * 512), vec![0; 300 * 512]);
        assert_eq!(bench.contents(64, 1)[0], pattern(64 * SECTOR));
        assert_eq!(bench.contents(24, 1)[0], pattern(24 * SECTOR));
    }
}

#[test]
fn bad_ranges_fail_before_anything_is_done() {
    let mut bench = Bench::new(false);
    let good = range(0, 8, 0);

    for (kind, bad, expected) in [
        (DISCARD_REQUEST, range(0, 8, 1), UNSUPP),
        (ZEROES_REQUEST, range(0, 8, 2), UNSUPP),
        (DISCARD_REQUEST, range(SECTORS, 1, 0), IOERR),
        (ZEROES_REQUEST, range(u64::MAX, 1, 0), IOERR),
        (ZEROES_REQUEST, range(0, u32::MAX, 0), IOERR),
        (ZEROES_REQUEST, vec![0; 15], IOERR),
        (ZEROES_REQUEST, range(0, 1, 0).repeat(17), IOERR),
    ] {
        let used = bench.request(kind, 0, &[good.clone(), bad.clone()].concat(), 0);
        assert_eq!(status(&used), expected, "{kind} {bad:?}");
    }
    assert_eq!(status(&bench.request(DISCARD_REQUEST, 0, &[], 0)), IOERR);
    assert_eq!(bench.contents(0, 1)[0], pattern(0));
    assert_eq!(bench.contents(1, 1)[0], pattern(SECTOR));
}

#[test]
fn file_that_shrinks_under_the_disk_gives_an_error_and_not_old_data() {
    let mut bench = Bench::new(false);
    bench.file.set_len(512).unwrap();

    let used = bench.request(IN, 8, &[], 512);

    assert_eq!(status(&used), IOERR);
    assert_eq!(used.written[..512], [0; 512]);
}

#[test]
fn chain_without_status_or_without_header_needs_a_reset() {
    let whole = header(IN, 0);
    for parts in [
        vec![Part::Read(&whole)],
        vec![Part::Read(&whole[..15]), Part::Write(1)],
        vec![Part::Write(513)],
        vec![Part::Read(&whole), Part::Write(0)],
    ] {
        let mut bench = Bench::new(false);
        bench.driver.offer(0, &parts);
        bench.driver.notify(0);
        assert!(bench.driver.needs_reset());
        assert_eq!(bench.driver.get(0x060) & 2, 2, "configuration change");
    }
}

#[test]
fn same_memory_for_header_and_data_is_read_before_it_is_overwritten() {
    let mut bench = Bench::new(false);
    let (descriptors, _, _) = areas(0);
    let gpa = 0x20_0000;
    bench.driver.ram.write(gpa, &header(IN, 5)).unwrap();
    bench.driver.set_descriptor(descriptors, 0, gpa, 16, 1, 1);
    bench.driver.set_descriptor(descriptors, 1, gpa, 512, WRITE | 1, 2);
    bench.driver.set_descriptor(descriptors, 2, gpa + 512, 1, WRITE, 0);

    bench.driver.make_available(0, 0);
    bench.driver.notify(0);

    let mut data = vec![0; 513];
    bench.driver.ram.read(gpa, &mut data).unwrap();
    assert_eq!(data[..512], bench.contents(5, 512));
    assert_eq!(data[512], OK);
}

#[test]
fn files_that_are_no_disks_are_refused() {
    let opened = |path: &str| RawFile::new(File::open(path).unwrap());
    let directory = opened("/");
    let character_devices = ["/dev/null", "/dev/zero"].map(opened);
    let empty = RawFile::new(File::from(memfd_create("empty", MemfdFlags::CLOEXEC).unwrap()));

    assert!(matches!(directory, Err(BlockError::NoSize)));
    assert!(character_devices.iter().all(|device| matches!(device, Err(BlockError::NoSize))));
    assert!(matches!(empty, Err(BlockError::TooSmall(0))));
}

/// Storage that has no quick way for anything, and says what is done to it.
struct Slow {
    bytes: Vec<u8>,
    calls: Vec<&'static str>,
}

impl BlockStorage for Slow {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn discard_alignment(&self) -> u32 {
        1 << 16
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.copy_from_slice(&self.bytes[offset as usize..][..data.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.calls.push("write");
        self.bytes[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.calls.push("flush");
        Ok(())
    }

    fn discard(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        self.calls.push("discard");
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_zeroes(&mut self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        self.calls.push("zeroes");
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn storage_without_a_quick_way_is_left_alone_by_discards_and_gets_zeros_written() {
    let slow = Slow { bytes: vec![0xd1; (SECTORS * SECTOR) as usize], calls: Vec::new() };
    let storage = Arc::new(Mutex::new(slow));
    let disk = Block::new(storage.clone(), false, "slow");
    let features = disk.features();
    let mut driver = Driver::new(Box::new(disk));
    driver.start(features);
    let mut request = |kind, data: &[u8]| {
        let header = header(kind, 0);
        status(&driver.request(0, &[Part::Read(&header), Part::Read(data), Part::Write(1)]))
    };

    let discarded = request(DISCARD_REQUEST, &range(0, 256, 0));
    let zeroed = request(ZEROES_REQUEST, &range(8, 256, 1));
    let alignment = driver.config(44, 4);

    let slow = storage.lock().unwrap();
    assert_eq!((discarded, zeroed), (OK, OK));
    // 128 KiB in two pieces; the driver flushes by itself.
    assert_eq!(slow.calls, ["discard", "zeroes", "write", "write"]);
    let zeros = 8 * SECTOR as usize..264 * SECTOR as usize;
    for (at, &byte) in slow.bytes.iter().enumerate() {
        assert_eq!(byte, if zeros.contains(&at) { 0 } else { 0xd1 }, "{at}");
    }
    assert_eq!(alignment, 128_u32.to_le_bytes());
}
