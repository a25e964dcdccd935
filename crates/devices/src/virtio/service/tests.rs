//! Devices on an I/O thread of their own, with drivers that do not wait for them.

use std::sync::atomic::{AtomicUsize, fence};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::bus::Device as _;
use crate::io::IoLoop;
use crate::io::tests::with_thread;
use crate::virtio::driver::{Driver, Part, VERSION_1, areas, quick, refill};

const PATIENCE: Duration = Duration::from_secs(60);
/// Registers of the transport.
const QUEUE_SELECT: u64 = 0x030;
const QUEUE_READY: u64 = 0x044;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;

/// A device of two queues. In queue 0 a request waits until it is let go; in queue 1 it writes one byte
/// over and over, until it is to stop.
struct Slow {
    begun: mpsc::Sender<usize>,
    go: mpsc::Receiver<()>,
    at_work: Arc<AtomicUsize>,
}

impl VirtioDevice for Slow {
    fn device_id(&self) -> u32 {
        42
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[8, 8]
    }

    fn config(&self) -> &[u8] {
        &[7]
    }

    fn serve(
        &mut self,
        index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        while let Some(chain) = queue.pop(ram)? {
            self.at_work.fetch_add(1, Ordering::SeqCst);
            self.begun.send(index).unwrap();
            let done = if index == 0 {
                self.go.recv().unwrap();
                chain.write(ram, 0, b"!")
            } else {
                loop {
                    if let Err(left_off) = chain.write(ram, 0, b"?") {
                        break Err(left_off);
                    }
                }
            };
            self.at_work.fetch_sub(1, Ordering::SeqCst);
            queue.complete(ram, &chain, done? as u64)?;
        }
        Ok(())
    }

    fn reset(&mut self) {}
}

/// What a test has of a slow device.
struct Bench {
    driver: Driver,
    handle: IoHandle,
    begun: mpsc::Receiver<usize>,
    go: mpsc::Sender<()>,
    at_work: Arc<AtomicUsize>,
}

impl Bench {
    /// Waits for a request to be at work.
    fn wait_for(&self, queue: usize) {
        assert_eq!(self.begun.recv_timeout(PATIENCE), Ok(queue));
    }

    /// Requests that are at work.
    fn at_work(&self) -> usize {
        self.at_work.load(Ordering::SeqCst)
    }

    fn acknowledge(&self) -> u32 {
        self.driver.wire.wait();
        let bits = self.driver.get(INTERRUPT_STATUS);
        self.driver.put(INTERRUPT_ACK, bits);
        bits
    }
}

/// Runs `test` with a slow device that a thread of its own serves.
fn with_slow(test: impl FnOnce(&mut Bench)) {
    let (begin, begun) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let at_work = Arc::new(AtomicUsize::new(0));
    let device = Slow { begun: begin, go: gone, at_work: at_work.clone() };
    let mut io = IoLoop::new().unwrap();
    let driver = Driver::on(&mut io, Box::new(device));
    let mut bench = Bench { driver, handle: io.handle().clone(), begun, go, at_work };
    with_thread(&io, move |_| {
        bench.driver.start(0);
        test(&mut bench);
    });
}

#[test]
fn registers_answer_and_notifications_return_while_a_request_is_in_flight() {
    with_slow(|bench| {
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.driver.notify(0);
        bench.wait_for(0);

        for _ in 0..1000 {
            bench.driver.notify(0);
            bench.driver.notify(1);
        }
        bench.driver.put(QUEUE_SELECT, 0);
        let seen = [INTERRUPT_STATUS, STATUS, QUEUE_READY].map(|at| bench.driver.get(at));
        let config = bench.driver.config(0, 1);

        assert_eq!((seen, config), ([0, 15, 1], vec![7]));
        assert!(bench.at_work() == 1 && bench.driver.take_used(0).is_empty());
        bench.go.send(()).unwrap();
        assert_eq!(bench.acknowledge(), 1);
        assert_eq!(bench.driver.take_used(0)[0].written, b"!");
    });
}

#[test]
fn a_reset_returns_when_the_request_in_flight_has_left_off() {
    with_slow(|bench| {
        for round in 0..200 {
            bench.driver.offer(1, &[Part::Write(1)]);
            bench.driver.notify(1);
            bench.wait_for(1);

            bench.driver.reset();

            assert_eq!((bench.at_work(), bench.driver.get(STATUS)), (0, 0), "round {round}");
            assert!(!bench.driver.asserted());
            bench.driver.start(0);
        }
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.go.send(()).unwrap();
        bench.driver.notify(0);
        bench.acknowledge();
        assert_eq!(bench.driver.take_used(0).len(), 1);
    });
}

#[test]
fn a_reset_waits_for_the_host_and_writes_nothing_after_it() {
    with_slow(|bench| {
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.driver.notify(0);
        bench.wait_for(0);
        let (driver, go) = (&mut bench.driver, &bench.go);

        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                go.send(()).unwrap();
            });
            driver.reset();
        });

        // The host was done with the request, which went no further.
        assert_eq!(bench.at_work(), 0);
        let mut used = [0; 2];
        bench.driver.ram.read(areas(0).2 + 2, &mut used).unwrap();
        assert_eq!((used, bench.driver.asserted()), ([0; 2], false));
    });
}

#[test]
fn a_queue_that_is_stopped_leaves_off_and_the_other_does_not() {
    with_slow(|bench| {
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.driver.notify(0);
        bench.wait_for(0);
        bench.driver.put(QUEUE_SELECT, 1);
        bench.driver.put(QUEUE_READY, 0);
        assert_eq!((bench.at_work(), bench.driver.get(QUEUE_READY)), (1, 0));
        bench.go.send(()).unwrap();
        bench.acknowledge();
        assert_eq!(bench.driver.take_used(0)[0].written, b"!");

        assert_eq!(bench.driver.set_up_queue(1, 8), 1);
        bench.driver.offer(1, &[Part::Write(1)]);
        bench.driver.notify(1);
        bench.wait_for(1);
        bench.driver.put(QUEUE_READY, 0);

        assert_eq!(bench.at_work(), 0);
        assert!(bench.driver.take_used(1).is_empty());
    });
}

#[test]
fn a_ring_that_is_broken_during_a_request_needs_a_reset_when_it_is_looked_at() {
    with_slow(|bench| {
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.driver.notify(0);
        bench.wait_for(0);

        let (_, driver_area, _) = areas(0);
        bench.driver.ram.write(driver_area + 2, &0x7fff_u16.to_le_bytes()).unwrap();
        bench.go.send(()).unwrap();
        let start = Instant::now();
        while !bench.driver.needs_reset() && start.elapsed() < PATIENCE {
            thread::yield_now();
        }

        assert!(bench.driver.needs_reset());
        bench.driver.start(0);
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.go.send(()).unwrap();
        bench.driver.notify(0);
        bench.acknowledge();
        assert_eq!(bench.driver.take_used(0)[0].written, b"!");
    });
}

#[test]
fn a_pause_ends_the_request_in_flight_and_begins_none() {
    with_slow(|bench| {
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.driver.offer(0, &[Part::Write(1)]);
        bench.driver.notify(0);
        bench.wait_for(0);
        assert!(!bench.handle.pause(Duration::from_millis(10), || false), "it is in flight");

        bench.go.send(()).unwrap();
        assert!(bench.handle.pause(PATIENCE, || false));
        let during = (bench.at_work(), bench.driver.take_used(0).len());
        bench.go.send(()).unwrap();
        bench.handle.resume();
        bench.wait_for(0);
        bench.acknowledge();

        assert_eq!(during, (0, 1));
        let start = Instant::now();
        while bench.driver.take_used(0).is_empty() {
            assert!(start.elapsed() < PATIENCE, "the second request is lost");
        }
    });
}

#[test]
fn no_interrupt_is_lost_between_an_acknowledgement_and_the_next_request() {
    for features in [0, 1 << 29] {
        let mut io = IoLoop::new().unwrap();
        let mut driver = Driver::on(&mut io, quick());
        with_thread(&io, |_| {
            driver.start(features);
            let used_event = areas(0).1 + 4 + 2 * 8;
            let mut back = 0_u32;
            for offered in 0..20_000_u32 {
                driver.offer(0, &[Part::Read(b"x")]);
                driver.reuse_buffers();
                driver.notify(0);
                while offered + 1 - back > 4 {
                    driver.wire.wait();
                    driver.put(INTERRUPT_ACK, driver.get(INTERRUPT_STATUS));
                    loop {
                        let more = driver.take_used(0).len() as u32;
                        if more == 0 {
                            break;
                        }
                        back += more;
                        // Interrupt at the next one, unless it is there already: another look tells.
                        driver.ram.write(used_event, &(back as u16).to_le_bytes()).unwrap();
                        fence(Ordering::SeqCst);
                    }
                }
            }
            assert!(!driver.needs_reset());
        });
    }
}

#[test]
fn a_guest_that_notifies_without_end_holds_up_nobody() {
    let mut io = IoLoop::new().unwrap();
    let mut storm = Driver::on(&mut io, quick());
    let mut other = Driver::on(&mut io, quick());
    let ending = AtomicBool::new(false);
    with_thread(&io, |_| {
        storm.start(0);
        other.start(0);
        let (storm, ending) = (&storm, &ending);
        thread::scope(|scope| {
            scope.spawn(move || {
                while !ending.load(Ordering::SeqCst) {
                    storm.notify(0);
                }
            });
            for _ in 0..200 {
                other.offer(0, &[Part::Read(b"x")]);
                other.notify(0);
                other.wire.wait();
                other.put(INTERRUPT_ACK, 1);
                assert_eq!(other.take_used(0).len(), 1);
            }
            assert!(io.handle().pause(PATIENCE, || false));
            io.handle().resume();
            ending.store(true, Ordering::SeqCst);
        });
    });
}

#[test]
fn a_driver_that_resets_without_end_and_one_that_notifies_are_no_deadlock() {
    let mut io = IoLoop::new().unwrap();
    let mut driver = Driver::on(&mut io, quick());
    driver.start(0);
    let transport = driver.transport.clone();
    let ending = AtomicBool::new(false);
    with_thread(&io, |_| {
        let ending = &ending;
        thread::scope(|scope| {
            scope.spawn(move || {
                while !ending.load(Ordering::SeqCst) {
                    transport.lock().unwrap().write(0x050, &0_u32.to_le_bytes());
                }
            });
            for _ in 0..2_000 {
                driver.start(0);
                driver.make_available(0, 0);
                driver.notify(0);
            }
            ending.store(true, Ordering::SeqCst);
        });
    });
    assert_eq!(driver.agree(VERSION_1), 11);
}

#[test]
fn a_turn_without_end_leaves_others_theirs() {
    let mut io = IoLoop::new().unwrap();
    let mut endless = Driver::on(&mut io, refill());
    let mut other = Driver::on(&mut io, quick());
    with_thread(&io, |_| {
        endless.start(0);
        endless.set_descriptor(areas(0).0, 0, 0, 0, 0, 0);
        endless.make_available(0, 0);
        endless.notify(0);
        other.start(0);

        for _ in 0..100 {
            other.offer(0, &[Part::Read(b"x")]);
            other.notify(0);
            other.wire.wait();
            other.put(INTERRUPT_ACK, 1);
            assert_eq!(other.take_used(0).len(), 1);
        }

        assert!(io.handle().pause(PATIENCE, || false));
        io.handle().resume();
        endless.reset();
    });
}
