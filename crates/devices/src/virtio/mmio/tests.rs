//! The transport as a driver sees it, and as a hostile one abuses it.

use std::collections::VecDeque;
use std::sync::Mutex;

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;
use crate::chaos::Chaos;
use crate::dma::DmaObserver;
use crate::virtio::Virtqueue;
use crate::virtio::driver::{
    Driver, INDIRECT, NEXT, Part, RAM, VERSION_1 as V1, WRITE, areas, refill,
};
use crate::virtio::{Block, Console, Entropy};

const NEEDS_RESET: u32 = 0x40;

/// Sends the readable bytes of each chain back in its writable ones.
#[derive(Default)]
struct Echo {
    features: Arc<Mutex<VecDeque<u64>>>,
}

impl VirtioDevice for Echo {
    fn device_id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        0b101
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[8, 16]
    }

    fn config(&self) -> &[u8] {
        &[0, 0x11, 0x22, 0x33, 1, 2, 3, 4]
    }

    fn activate(&mut self, features: u64) {
        self.features.lock().unwrap().push_back(features);
    }

    fn serve(
        &mut self,
        _index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        while let Some(chain) = queue.pop(ram)? {
            let mut data = [0; 256];
            let read = chain.read(ram, 0, &mut data)?;
            let written = chain.write(ram, 0, &data[..read])?;
            queue.complete(ram, &chain, written as u64)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.features.lock().unwrap().push_back(u64::MAX);
    }
}

fn echo() -> Driver {
    Driver::new(Box::new(Echo::default()))
}

#[test]
fn identification_registers_are_those_of_version_2() {
    let driver = echo();

    assert_eq!(driver.get(0x000).to_le_bytes(), *b"virt");
    assert_eq!(driver.get(0x004), 2);
    assert_eq!(driver.get(0x008), 42);
    assert_eq!(driver.get(0x0fc), 0);
}

#[test]
fn offered_features_are_the_devices_and_the_transports_in_two_pages() {
    let driver = echo();

    assert_eq!(driver.offered(), 0b101 | 3 << 28 | V1);
    driver.put(0x014, 2);
    assert_eq!(driver.get(0x010), 0);
}

#[test]
fn features_are_refused_without_version_1_or_when_not_offered() {
    let mut driver = echo();

    assert_eq!(driver.agree(0b1), 3, "legacy driver");
    assert_eq!(driver.agree(V1 | 0b10), 3, "not offered");
    assert_eq!(driver.agree(V1 | 1 << 34), 3, "packed ring");
    assert_eq!(driver.agree(V1 | 0b100), 11);
}

#[test]
fn agreed_features_reach_the_device_and_stay_until_reset() {
    let log = Arc::default();
    let mut driver = Driver::new(Box::new(Echo { features: Arc::clone(&log) }));
    driver.agree(V1 | 0b001);

    driver.put(0x024, 0);
    driver.put(0x020, 0b100);
    driver.put(0x070, 15);
    driver.put(0x070, 0);

    assert_eq!(*log.lock().unwrap(), [u64::MAX, V1 | 0b001, u64::MAX]);
}

#[test]
fn status_bits_come_in_order_and_are_not_taken_back() {
    let driver = echo();

    for (written, read) in [(8, 0), (4, 0), (1, 1), (4, 1), (2, 3), (4, 3), (0x40, 3), (0x80, 0x83)]
    {
        driver.put(0x070, written);
        assert_eq!(driver.get(0x070), read, "after {written:#x}");
    }
    driver.put(0x070, 0);
    assert_eq!(driver.get(0x070), 0);
}

#[test]
fn queue_sizes_end_with_zero_for_queues_that_are_not_there() {
    let driver = echo();

    let sizes = [0, 1, 2, u32::MAX].map(|index| {
        driver.put(0x030, index);
        driver.get(0x034)
    });

    assert_eq!(sizes, [8, 16, 0, 0]);
}

#[test]
fn shared_memory_regions_are_not_there() {
    let driver = echo();

    driver.put(0x0ac, 0);

    assert_eq!([0x0b0, 0x0b4, 0x0b8, 0x0bc].map(|at| driver.get(at)), [u32::MAX; 4]);
}

#[test]
fn request_is_served_and_interrupts_until_acknowledged() {
    let mut driver = echo();
    driver.start(0);
    driver.offer(1, &[Part::Read(b"ping"), Part::Write(3), Part::Write(8)]);

    driver.notify(1);

    assert!(driver.asserted());
    assert_eq!(driver.get(0x060), 1);
    driver.put(0x064, 1);
    assert!(!driver.asserted());
    assert_eq!(driver.get(0x060), 0);
    let used = driver.take_used(1);
    assert_eq!((used[0].len, &used[0].written[..4]), (4, &b"ping"[..]));
}

#[test]
fn rings_work_past_the_wrap_of_their_indices() {
    let mut driver = echo();
    driver.start(0);

    for round in 0..70_000_u32 {
        let used = driver.request(0, &[Part::Read(&round.to_le_bytes()), Part::Write(4)]);
        assert_eq!(used.written, round.to_le_bytes());
        driver.reuse_buffers();
    }
}

#[test]
fn nothing_is_served_before_driver_ok_and_all_of_it_then() {
    let mut driver = echo();
    driver.agree(V1);
    driver.set_up_queue(0, 8);
    driver.offer(0, &[Part::Read(b"soon"), Part::Write(4)]);

    driver.notify(0);
    assert!(driver.take_used(0).is_empty());
    driver.put(0x070, 15);

    assert_eq!(driver.take_used(0)[0].written, b"soon");
}

#[test]
fn failed_driver_gets_nothing_served() {
    let mut driver = echo();
    driver.start(0);
    driver.offer(0, &[Part::Read(b"late"), Part::Write(4)]);

    driver.put(0x070, 0x8f);
    driver.notify(0);

    assert!(driver.take_used(0).is_empty());
}

#[test]
fn reset_forgets_everything_and_lets_go_of_the_line() {
    let mut driver = echo();
    driver.start(0);
    driver.offer(0, &[Part::Read(b"x"), Part::Write(1)]);
    driver.notify(0);
    assert!(driver.asserted());

    driver.reset();

    assert!(!driver.asserted());
    assert_eq!([0x070, 0x060, 0x044].map(|at| driver.get(at)), [0; 3]);
    driver.start(0);
    assert_eq!(driver.request(0, &[Part::Read(b"again"), Part::Write(5)]).written, b"again");
}

#[test]
fn event_index_holds_interrupts_back_until_the_driver_wants_one() {
    let mut driver = echo();
    driver.start(1 << 29);
    let (_, driver_area, device_area) = areas(0);
    let (used_event, avail_event) = (driver_area + 4 + 2 * 8, device_area + 4 + 8 * 8);
    driver.ram.write(used_event, &1_u16.to_le_bytes()).unwrap();

    driver.offer(0, &[Part::Write(1)]);
    driver.notify(0);
    let after_first = driver.asserted();
    driver.offer(0, &[Part::Write(1)]);
    driver.notify(0);
    let after_second = driver.asserted();

    assert_eq!((after_first, after_second), (false, true));
    let mut wanted = [0; 2];
    driver.ram.read(avail_event, &mut wanted).unwrap();
    assert_eq!(u16::from_le_bytes(wanted), 2);
}

#[test]
fn indirect_table_is_walked() {
    let mut driver = echo();
    driver.start(0);
    let (descriptors, _, _) = areas(0);
    driver.ram.write(0x20_0000, b"far").unwrap();
    driver.set_descriptor(0x30_0000, 0, 0x20_0000, 3, NEXT, 1);
    driver.set_descriptor(0x30_0000, 1, 0x20_1000, 3, WRITE, 0);
    driver.set_descriptor(descriptors, 0, 0x30_0000, 32, INDIRECT, 0);

    driver.make_available(0, 0);
    driver.notify(0);

    let mut data = [0; 3];
    driver.ram.read(0x20_1000, &mut data).unwrap();
    assert_eq!(data, *b"far");
}

#[test]
fn observer_learns_of_data_and_of_the_used_ring() {
    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, u64)>>);
    impl DmaObserver for Log {
        fn written(&self, gpa: u64, len: u64) {
            self.0.lock().unwrap().push((gpa, len));
        }
    }
    let log = Arc::new(Log::default());
    let quiet = Driver::ram();
    let watched = GuestRam::new(quiet.memory().clone(), Some(log.clone()));
    let mut io = IoLoop::new().unwrap();
    let line = Arc::new(crate::Unconnected);
    let transport = MmioTransport::new(Box::new(Echo::default()), &watched, line, &mut io);
    let mut driver = Driver::attach(Arc::new(Mutex::new(transport)), quiet, io);
    driver.start(0);

    driver.offer(0, &[Part::Read(b"ab"), Part::Write(2)]);
    driver.notify(0);

    let (_, _, device_area) = areas(0);
    let written = log.0.lock().unwrap();
    // The buffer to write lies three bytes after the two to read.
    assert_eq!(*written, [(0x20_0005, 2), (device_area + 4, 8), (device_area, 4)]);
}

#[test]
fn configuration_is_read_in_any_width_ends_in_zeros_and_is_not_written() {
    let driver = echo();
    {
        let mut transport = driver.transport.lock().unwrap();
        transport.write(0x101, &[0x99]);
        transport.write(0x102, &[0x99, 0x99]);
        transport.write(0x104, &[9; 4]);
        transport.write(0x104, &[9; 8]);
        transport.write(0x1ff, &[9]);
    }

    assert_eq!(driver.config(0, 12), [0, 0x11, 0x22, 0x33, 1, 2, 3, 4, 0, 0, 0, 0]);
    for (offset, len, bytes) in [(1, 1, &[0x11][..]), (2, 2, &[0x22, 0x33]), (7, 2, &[4, 0])] {
        assert_eq!(driver.config(offset, len), bytes);
    }
    assert_eq!(driver.config(0xff, 1), [0]);
}

#[test]
fn transport_registers_take_aligned_words_only() {
    let driver = echo();
    let mut transport = driver.transport.lock().unwrap();
    let (mut byte, mut long, mut askew) = ([0xff; 1], [0xff; 8], [0xff; 4]);

    transport.read(0x000, &mut byte);
    transport.read(0x000, &mut long);
    transport.read(0x002, &mut askew);
    transport.write(0x070, &[1]);
    transport.write(0x070, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let mut status = [0xff; 4];
    transport.read(0x070, &mut status);

    assert_eq!((byte, long, askew, status), ([0], [0; 8], [0; 4], [0; 4]));
}

/// Sets up the rings of queue 0 by hand, starts it, and returns QueueReady and the status.
fn start_at(size: u32, descriptors: u64, driver_area: u64, device_area: u64) -> (u32, u32) {
    let mut driver = echo();
    driver.agree(V1);
    driver.put(0x030, 0);
    driver.put(0x038, size);
    for (register, address) in [(0x080, descriptors), (0x090, driver_area), (0x0a0, device_area)] {
        driver.put(register, address as u32);
        driver.put(register + 4, (address >> 32) as u32);
    }
    driver.put(0x044, 1);
    (driver.get(0x044), driver.get(0x070))
}

#[test]
fn queue_that_cannot_run_is_not_ready_and_needs_a_reset() {
    let bad = (0, 11 | NEEDS_RESET);

    assert_eq!(start_at(8, 0x1000, 0x2000, 0x3000), (1, 11));
    assert_eq!(start_at(1, 0x1000, 0x2000, 0x3000), (1, 11));
    for size in [0, 3, 9, 16, 0x1_0008, u32::MAX] {
        assert_eq!(start_at(size, 0x1000, 0x2000, 0x3000), bad, "size {size}");
    }
    assert_eq!(start_at(8, 0x1008, 0x2000, 0x3000), bad, "descriptors askew");
    assert_eq!(start_at(8, 0x1000, 0x2001, 0x3000), bad, "driver area askew");
    assert_eq!(start_at(8, 0x1000, 0x2000, 0x3002), bad, "device area askew");
    assert_eq!(start_at(8, RAM - 0x70, 0x2000, 0x3000), bad, "descriptors past RAM");
    assert_eq!(start_at(8, 0x1000, RAM, 0x3000), bad, "driver area past RAM");
    assert_eq!(start_at(8, 0x1000, 0x2000, !0xfff), bad, "device area at the end of all");
}

#[test]
fn ready_queue_keeps_its_setup_and_a_stopped_one_starts_over() {
    let mut driver = echo();
    driver.start(0);
    driver.request(0, &[Part::Read(b"a"), Part::Write(1)]);
    driver.put(0x030, 0);

    driver.put(0x038, 2);
    driver.put(0x080, 0xffff_fff0);
    assert_eq!(driver.request(0, &[Part::Read(b"b"), Part::Write(1)]).written, b"b");
    driver.put(0x044, 0);
    assert_eq!(driver.get(0x044), 0);
    driver.offer(0, &[Part::Read(b"c"), Part::Write(1)]);
    driver.notify(0);
    assert!(driver.take_used(0).is_empty());

    assert_eq!(driver.set_up_queue(0, 8), 1);
    assert_eq!(driver.request(0, &[Part::Read(b"d"), Part::Write(1)]).written, b"d");
}

/// Offers one chain whose descriptors are `(gpa, len, flags, next)` from index 0, and returns
/// whether the device stops.
fn breaks(descriptors: &[(u64, u32, u16, u16)]) -> bool {
    let mut driver = echo();
    driver.start(0);
    let (table, _, _) = areas(0);
    for (index, &(gpa, len, flags, next)) in (0..).zip(descriptors) {
        driver.set_descriptor(table, index, gpa, len, flags, next);
    }
    driver.make_available(0, 0);
    driver.notify(0);
    driver.needs_reset() && driver.get(0x060) == 2 && driver.asserted()
}

#[test]
fn broken_chains_need_a_reset() {
    let buffer = 0x20_0000;

    assert!(!breaks(&[(buffer, 4, 0, 0)]));
    assert!(!breaks(&[(0, 0, 0, 0)]), "empty buffer");
    assert!(breaks(&[(buffer, 4, NEXT, 0)]), "loop of one");
    assert!(breaks(&[(buffer, 4, NEXT, 1), (buffer, 4, NEXT, 0)]), "loop of two");
    assert!(breaks(&[(buffer, 4, NEXT, 8)]), "successor outside the table");
    assert!(breaks(&[(buffer, 4, NEXT, u16::MAX)]), "successor far outside");
    assert!(breaks(&[(RAM, 1, 0, 0)]), "buffer after RAM");
    assert!(breaks(&[(RAM - 4, 5, WRITE, 0)]), "buffer over the end of RAM");
    assert!(breaks(&[(u64::MAX, 2, 0, 0)]), "buffer over the end of all");
    assert!(breaks(&[(0, u32::MAX, 0, 0)]), "huge buffer");
    assert!(breaks(&[(buffer, 4, WRITE | NEXT, 1), (buffer, 4, 0, 0)]), "write before read");
    assert!(breaks(&[(buffer, 0, INDIRECT, 0)]), "empty indirect table");
    assert!(breaks(&[(buffer, 17, INDIRECT, 0)]), "indirect table of part of an entry");
    assert!(breaks(&[(RAM, 16, INDIRECT, 0)]), "indirect table outside RAM");
    assert!(breaks(&[(u64::MAX - 15, 16, INDIRECT, 0)]), "indirect table at the end of all");
    assert!(breaks(&[(buffer, 16 << 16, INDIRECT, 0)]), "indirect table of 64 Ki entries");
}

#[test]
fn lengths_that_sum_to_4_gib_need_a_reset() {
    for (count, needs_reset) in [(255, false), (256, true)] {
        let file = std::fs::File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(1 << 20).unwrap();
        let mut driver = Driver::new(Box::new(Block::from_file(file, true, "disk").unwrap()));
        driver.start(0);
        let (table, _, _) = areas(0);
        // All of RAM to read, with a header of zeros at its front, and then to write, again and
        // again.
        driver.set_descriptor(table, 0, 0, RAM as u32, NEXT, 1);
        for index in 1..count {
            let more = if index + 1 < count { NEXT } else { 0 };
            driver.set_descriptor(table, index, 0, RAM as u32, WRITE | more, index + 1);
        }

        driver.make_available(0, 0);
        driver.notify(0);

        assert_eq!(driver.needs_reset(), needs_reset, "{count} times {RAM:#x}");
    }
}

#[test]
fn indirect_chain_longer_than_the_queue_needs_a_reset() {
    let mut driver = echo();
    driver.start(0);
    let (table, _, _) = areas(0);
    for index in 0..8 {
        driver.set_descriptor(0x30_0000, index, 0x20_0000, 1, NEXT, index + 1);
    }
    driver.set_descriptor(0x30_0000, 8, 0x20_0000, 1, 0, 0);
    driver.set_descriptor(table, 0, 0x30_0000, 9 * 16, INDIRECT, 0);

    driver.make_available(0, 0);
    driver.notify(0);

    assert!(driver.needs_reset());
}

#[test]
fn available_ring_that_lies_needs_a_reset() {
    let mut driver = echo();
    driver.start(0);
    let (_, driver_area, _) = areas(0);
    driver.ram.write(driver_area + 2, &9_u16.to_le_bytes()).unwrap();
    driver.notify(0);
    assert!(driver.needs_reset(), "more chains than descriptors");

    driver.start(0);
    driver.make_available(0, 8);
    driver.notify(0);
    assert!(driver.needs_reset(), "head outside the table");
}

#[test]
fn device_that_needs_a_reset_serves_nothing_until_it_gets_one() {
    let mut driver = echo();
    driver.start(0);
    driver.make_available(0, 0xffff);
    driver.notify(0);

    driver.offer(1, &[Part::Read(b"no"), Part::Write(2)]);
    driver.notify(1);
    assert!(driver.take_used(1).is_empty());
    driver.start(0);

    assert_eq!(driver.request(1, &[Part::Read(b"ok"), Part::Write(2)]).written, b"ok");
}

#[test]
fn ring_refilled_without_end_lets_go_and_goes_on_in_the_next_turn() {
    let mut driver = Driver::new(refill());
    driver.start(1 << 29);
    let (table, _, device_area) = areas(0);
    driver.set_descriptor(table, 0, 0, 0, 0, 0);
    let used = |driver: &Driver| {
        let mut index = [0; 2];
        driver.ram.read(device_area + 2, &mut index).unwrap();
        u16::from_le_bytes(index)
    };

    driver.make_available(0, 0);
    driver.notify(0);
    let first = used(&driver);
    assert!(driver.asserted());
    driver.work();

    assert_eq!((first, used(&driver)), (128, 256));
}

/// A driver that fills its rings with anything.
fn abuse(device: Box<dyn VirtioDevice>, seed: u64) {
    let mut chaos = Chaos::new(seed);
    let mut driver = Driver::new(device);
    for _ in 0..300 {
        driver.start(chaos.next() & driver.offered());
        for _ in 0..chaos.below(40) {
            let queue = chaos.below(2);
            let (table, driver_area, _) = areas(queue as usize);
            match chaos.below(8) {
                0 => {
                    chaos.access(&mut *driver.transport.lock().unwrap(), 0x200);
                    driver.work();
                }
                1 => driver.ram.write(driver_area + 2, &[chaos.below(20) as u8, 0]).unwrap(),
                2 => {
                    let entry = driver_area + 4 + 2 * chaos.below(64);
                    driver.ram.write(entry, &[chaos.below(16) as u8, 0]).unwrap();
                }
                3 => driver.notify(queue as usize),
                4 => {
                    // A header that a disk may like.
                    let mut header = [0; 16];
                    header[0] = chaos.below(16) as u8;
                    header[8] = chaos.next() as u8;
                    driver.ram.write(0x20_0000, &header).unwrap();
                }
                _ => {
                    let gpa = match chaos.below(6) {
                        0 => chaos.next(),
                        1 => RAM - chaos.below(600),
                        2 => table,
                        _ => 0x20_0000,
                    };
                    let len = match chaos.below(4) {
                        0 => chaos.next() as u32,
                        1 => 16,
                        _ => chaos.below(8) as u32 * 256 + 1,
                    };
                    let flags = chaos.below(8) as u16 & !(chaos.below(2) as u16 * INDIRECT);
                    let (index, next) = (chaos.below(16) as u16, chaos.below(18) as u16);
                    driver.set_descriptor(table, index, gpa, len, flags, next);
                }
            }
        }
    }
}

#[test]
fn random_rings_and_registers_never_panic() {
    for seed in 0..8 {
        let file = std::fs::File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(1 << 20).unwrap();
        abuse(Box::new(Block::from_file(file, false, "disk").unwrap()), seed);
        abuse(Box::new(Entropy), seed);
        abuse(Box::new(Echo::default()), seed);
    }
}

#[test]
fn random_registers_of_a_console_never_panic() {
    let mut chaos = Chaos::new(0xc0);
    let line = Arc::new(crate::Unconnected);
    let mut io = IoLoop::new().unwrap();
    let (transport, input) =
        Console::attach(&Driver::ram(), line, Box::new(std::io::sink()), Some((80, 25)), &mut io);

    for _ in 0..100_000 {
        chaos.access(&mut *transport.lock().unwrap(), 0x200);
        if chaos.below(64) == 0 {
            input.push(b"?");
        }
        io.work_once();
    }
}
