//! Several pairs of queues, and the control queue.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// The commands of the specification.
const SET_PAIRS: [u8; 2] = [4, 0];
const OK: u8 = 0;
const ERR: u8 = 1;
const FEATURES: u64 = MULTIQUEUE | MRG_RXBUF;

/// A peer at one end of a socket, each of whose datagrams is a packet.
struct Datagrams {
    socket: UnixDatagram,
    enabled: Arc<Mutex<Vec<bool>>>,
    /// It does not let itself be enabled.
    refuses: bool,
}

impl NetPeer for Datagrams {
    fn enable(&mut self, on: bool) -> bool {
        self.enabled.lock().unwrap().push(on);
        !(on && self.refuses)
    }

    fn is_up(&self) -> bool {
        true
    }

    fn send(&mut self, packet: &mut [u8]) -> bool {
        self.socket.send(packet).is_ok()
    }

    fn receive(&mut self, packet: &mut [u8]) -> Option<usize> {
        self.socket.recv(packet).ok()
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

/// The other end of a pair of queues.
struct End {
    socket: UnixDatagram,
    enabled: Arc<Mutex<Vec<bool>>>,
    /// What the thread of the device waits for on behalf of the pair.
    events: Arc<OwnedFd>,
}

impl End {
    /// Sends the guest a frame of `len` bytes.
    fn send(&self, len: usize) {
        self.socket.send(&plain(&frame(len))).unwrap();
    }

    /// The lengths of the frames that the guest has sent here.
    fn sent(&self) -> Vec<usize> {
        let mut packet = vec![0; MAX_PACKET];
        let next = || Some(self.socket.recv(&mut packet).ok()? - NET_HEADER);
        std::iter::from_fn(next).collect()
    }

    /// What it was told last.
    fn is_enabled(&self) -> Option<bool> {
        self.enabled.lock().unwrap().last().copied()
    }
}

/// A device and the other ends of its pairs; `refuses` is the one that cannot be enabled.
fn device_of(count: usize, refuses: Option<usize>) -> (Box<Net>, Vec<End>) {
    let mut others = Vec::new();
    let mut peers: Vec<Arc<Mutex<dyn NetPeer>>> = Vec::new();
    for at in 0..count {
        let (socket, other) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        let enabled = Arc::<Mutex<Vec<bool>>>::default();
        let refuses = refuses == Some(at);
        others.push((other, enabled.clone()));
        peers.push(Arc::new(Mutex::new(Datagrams { socket, enabled, refuses })));
    }
    let device = Net::new(ADDRESS, None, peers).unwrap();
    let events = device.host_events();
    assert!(events.iter().map(|&(queue, _)| queue).eq((0..count).map(|pair| 2 * pair)));
    let end = |((socket, enabled), (_, events))| End { socket, enabled, events };
    let ends = others.into_iter().zip(events).map(end).collect();
    (Box::new(device), ends)
}

/// A driver that is not started, and the other ends of its device.
fn with_pairs(count: usize, refuses: Option<usize>) -> (Driver, Vec<End>) {
    let (device, ends) = device_of(count, refuses);
    (Driver::new(device), ends)
}

/// A driver that uses `count` pairs if the device does as it is told, and their other ends.
fn started(count: usize) -> (Driver, Vec<End>) {
    let (mut driver, ends) = with_pairs(count, None);
    driver.start(FEATURES);
    (driver, ends)
}

/// The answer to a command on the control queue, which follows those of `pairs`.
fn command(driver: &mut Driver, pairs: usize, parts: &[&[u8]]) -> u8 {
    let mut parts: Vec<_> = parts.iter().map(|&part| Part::Read(part)).collect();
    parts.push(Part::Write(1));
    let used = driver.request(2 * pairs, &parts);
    assert_eq!(used.len, 1);
    used.written[0]
}

fn set_pairs(driver: &mut Driver, of: usize, count: u16) -> u8 {
    let answer = command(driver, of, &[&SET_PAIRS, &count.to_le_bytes()]);
    // What follows from it.
    work(driver);
    answer
}

/// Offers buffers to all pairs and has the device look.
fn offer_to(driver: &mut Driver, pairs: std::ops::Range<usize>) {
    for pair in pairs {
        driver.offer(2 * pair, &[Part::Write(2000)]);
        driver.offer(2 * pair, &[Part::Write(2000)]);
        driver.notify(2 * pair);
    }
}

/// The lengths of the frames that a pair received.
fn received(driver: &mut Driver, pair: usize) -> Vec<usize> {
    work(driver);
    driver.take_used(2 * pair).iter().map(|used| used.len as usize - NET_HEADER).collect()
}

fn transmit_on(driver: &mut Driver, pair: usize, len: usize) {
    assert_eq!(driver.request(2 * pair + 1, &[Part::Read(&plain(&frame(len)))]).len, 0);
}

fn states(ends: &[End]) -> Vec<Option<bool>> {
    ends.iter().map(End::is_enabled).collect()
}

#[test]
fn a_device_of_several_pairs_says_how_many_and_has_a_control_queue_after_them() {
    for pairs in [2, 3, MAX_QUEUE_PAIRS] {
        let (driver, _ends) = with_pairs(pairs, None);
        assert_eq!(driver.offered() & MULTIQUEUE, MULTIQUEUE);
        assert_eq!(driver.config(8, 2), [pairs as u8, 0]);
        let exists = |index: usize| {
            driver.put(0x030, index as u32);
            driver.get(0x034) != 0
        };
        assert!((0..=2 * pairs).all(exists));
        assert!(!exists(2 * pairs + 1));
    }
    let (driver, _ends) = with_pairs(1, None);
    assert_eq!((driver.offered() & MULTIQUEUE, driver.config(8, 2)), (0, vec![0, 0]));
    driver.put(0x030, 2);
    assert_eq!(driver.get(0x034), 0);
}

#[test]
fn each_pair_receives_from_its_own_peer_and_sends_to_it() {
    const PAIRS: usize = MAX_QUEUE_PAIRS;
    let (mut driver, ends) = started(PAIRS);
    driver.place_buffers(8 << 20);
    assert_eq!(set_pairs(&mut driver, PAIRS, PAIRS as u16), OK);
    offer_to(&mut driver, 0..PAIRS);
    for (at, end) in ends.iter().enumerate() {
        end.send(100 + at);
        transmit_on(&mut driver, at, 200 + at);
    }

    for (at, end) in ends.iter().enumerate() {
        assert_eq!(received(&mut driver, at), [100 + at]);
        assert_eq!(end.sent(), [200 + at]);
    }
    // Again, since each event of the host is watched for once.
    ends.iter().for_each(|end| end.send(300));
    for at in 0..PAIRS {
        assert_eq!(received(&mut driver, at), [300], "{at}");
    }
}

#[test]
fn one_pair_is_used_until_the_driver_says_more() {
    let (mut driver, ends) = started(3);
    offer_to(&mut driver, 0..3);
    ends.iter().for_each(|end| end.send(60));

    assert_eq!(states(&ends), [Some(true), Some(false), Some(false)]);
    assert_eq!([0, 1, 2].map(|at| received(&mut driver, at).len()), [1, 0, 0]);
    // The buffers that were offered before count from now on.
    assert_eq!(set_pairs(&mut driver, 3, 2), OK);
    assert_eq!(states(&ends), [Some(true), Some(true), Some(false)]);
    assert_eq!([0, 1, 2].map(|at| received(&mut driver, at).len()), [0, 1, 0]);
}

#[test]
fn a_pair_that_is_given_up_receives_nothing_and_sends_what_is_left_in_it() {
    let (mut driver, ends) = started(2);
    set_pairs(&mut driver, 2, 2);
    // No buffer yet: the device holds the packet.
    ends[1].send(61);
    work(&driver);

    assert_eq!(set_pairs(&mut driver, 2, 1), OK);
    ends[1].send(62);
    offer_to(&mut driver, 0..2);
    transmit_on(&mut driver, 1, 70);
    let given_up = received(&mut driver, 1);
    set_pairs(&mut driver, 2, 2);

    assert_eq!((given_up, ends[1].sent()), (vec![], vec![70]));
    // What was held is gone; this peer does not drop what it has.
    assert_eq!(received(&mut driver, 1), [62]);
    // The second buffer is there still.
    ends[1].send(63);
    assert_eq!(received(&mut driver, 1), [63]);
}

#[test]
fn numbers_of_pairs_that_there_are_not_are_refused_and_change_nothing() {
    let (mut driver, ends) = started(3);
    assert_eq!(set_pairs(&mut driver, 3, 2), OK);

    for count in [0, 4, 8, 9, 0x100, 0x8000, 0xffff] {
        assert_eq!(set_pairs(&mut driver, 3, count), ERR, "{count}");
    }

    assert_eq!(states(&ends), [Some(true), Some(true), Some(false)]);
    offer_to(&mut driver, 0..3);
    ends.iter().for_each(|end| end.send(60));
    assert_eq!([0, 1, 2].map(|at| received(&mut driver, at).len()), [1, 1, 0]);
}

#[test]
fn commands_that_are_unknown_or_of_another_length_are_refused() {
    let (mut driver, ends) = started(2);

    for parts in [
        &[&[4][..]][..],
        &[&[]],
        &[&SET_PAIRS],
        &[&SET_PAIRS, &[2]],
        &[&SET_PAIRS, &[2, 0, 0]],
        &[&SET_PAIRS, &[2, 0], &[0; 5000]],
        // RSS, other classes, and VLAN with its data.
        &[&[4, 1], &[2, 0]],
        &[&[4, 0xff], &[2, 0]],
        &[&[0, 0], &[1]],
        &[&[0, 0], &[2, 0]],
        &[&[0xff, 0], &[2, 0]],
        &[&[2, 0], &[2, 0]],
    ] {
        assert_eq!(command(&mut driver, 2, parts), ERR, "{parts:?}");
    }

    assert_eq!(states(&ends), [Some(true), Some(false)]);
    assert!(!driver.needs_reset());
    // A byte at a time is as good as any other way, and so is an answer with room to spare.
    assert_eq!(command(&mut driver, 2, &[&[4], &[0], &[2], &[], &[0]]), OK);
    let parts = [Part::Read(&[4, 0, 1, 0]), Part::Write(0), Part::Write(1), Part::Write(9)];
    let used = driver.request(4, &parts);
    assert_eq!((used.len, used.written[0]), (1, OK));
}

#[test]
fn a_command_without_room_for_its_answer_asks_for_a_reset_and_is_not_obeyed() {
    const COMMAND: Part<'_> = Part::Read(&[4, 0, 2, 0]);
    for parts in [&[COMMAND][..], &[COMMAND, Part::Write(0)]] {
        let (mut driver, ends) = started(2);

        driver.offer(4, parts);
        driver.notify(4);

        assert!(driver.needs_reset());
        assert_eq!(states(&ends), [Some(true), Some(false)]);
    }
}

#[test]
fn without_mq_the_control_queue_follows_the_first_pair_and_there_is_no_other() {
    for features in [CTRL_VQ, MQ, 0] {
        let (mut driver, ends) = with_pairs(3, None);
        driver.start(features);
        let has_control = features == CTRL_VQ;
        driver.offer(2, &[Part::Read(&[4, 0, 2, 0]), Part::Write(1)]);
        driver.notify(2);
        let answers = driver.take_used(2);
        for index in 3..7 {
            driver.offer(index, &[Part::Read(&plain(&frame(60))), Part::Write(1)]);
            driver.notify(index);
            assert!(driver.take_used(index).is_empty(), "{features:#x}: {index}");
        }
        driver.offer(RECEIVE, &[Part::Write(2000)]);
        driver.notify(RECEIVE);
        ends.iter().for_each(|end| end.send(60));

        assert_eq!(answers.len(), usize::from(has_control));
        assert!(answers.iter().all(|used| used.written == [ERR]));
        assert_eq!(received(&mut driver, 0), [60]);
        assert!(ends.iter().all(|end| end.sent().is_empty()));
    }
}

#[test]
fn after_a_reset_one_pair_is_used_and_the_others_keep_nobody_busy() {
    for waits in [true, false] {
        let (mut driver, ends) = started(2);
        set_pairs(&mut driver, 2, 2);
        offer_to(&mut driver, 0..2);
        // The device waits for the peers, or for buffers while there is more.
        let before = if waits { 0 } else { 20 };
        (0..before).for_each(|_| ends.iter().for_each(|end| end.send(500)));
        work(&driver);

        // A driver without MQ, whose control queue is where the second pair received.
        driver.start(CTRL_VQ);
        ends.iter().for_each(|end| end.send(501));
        offer_to(&mut driver, 0..1);

        assert_eq!(states(&ends), [Some(true), Some(false)]);
        assert!(!received(&mut driver, 0).is_empty());
        driver.offer(2, &[Part::Read(&[4, 0, 2, 0]), Part::Write(1)]);
        driver.notify(2);
        assert_eq!(driver.take_used(2).len(), 1);
        // The other peer's packets stay where they are, and nobody is woken for them.
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let woken = poll(&mut [PollFd::new(&ends[1].events, PollFlags::IN)], Some(&now));
        assert_eq!(woken, Ok(0), "{waits}");
        driver.start(FEATURES);
        assert_eq!(set_pairs(&mut driver, 2, 2), OK);
        offer_to(&mut driver, 1..2);
        assert!(!received(&mut driver, 1).is_empty());
    }
}

#[test]
fn a_peer_that_cannot_be_enabled_leaves_the_pairs_as_they_were() {
    let (mut driver, ends) = with_pairs(4, Some(2));
    driver.start(FEATURES);
    assert_eq!(set_pairs(&mut driver, 4, 2), OK);

    assert_eq!(set_pairs(&mut driver, 4, 4), ERR);

    assert_eq!(states(&ends), [Some(true), Some(true), Some(false), Some(false)]);
    offer_to(&mut driver, 0..2);
    ends.iter().for_each(|end| end.send(60));
    assert_eq!([0, 1].map(|at| received(&mut driver, at).len()), [1, 1]);
}

#[test]
fn commands_without_end_leave_other_queues_their_turn() {
    let (mut driver, ends) = started(2);
    for count in (0..100).map(|at| 1 + at % 2) {
        driver.offer(4, &[Part::Read(&[4, 0, count, 0]), Part::Write(1)]);
    }

    driver.notify(4);
    let first = driver.take_used(4).len();
    transmit_on(&mut driver, 0, 60);
    let then = driver.take_used(4).len();
    (0..100).for_each(|_| driver.work());

    assert!(first + then < 10, "{first}, {then}");
    assert_eq!(ends[0].sent(), [60]);
    assert_eq!(first + then + driver.take_used(4).len(), 100);
    assert_eq!(states(&ends), [Some(true), Some(true)]);
}

#[test]
fn resets_while_frames_flow_leave_a_device_that_receives_on_all_pairs() {
    let (mut io, (device, ends)) = (crate::IoLoop::new().unwrap(), device_of(2, None));
    let mut driver = Driver::on(&mut io, device);
    let stop = AtomicBool::new(false);

    crate::io::tests::with_thread(&io, |_| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for end in &ends {
                        // Err: nobody takes them at the moment.
                        let _ = end.socket.send(&plain(&frame(1000)));
                    }
                }
            });
            for round in 0..30 {
                driver.start(FEATURES);
                driver.reuse_buffers();
                driver.offer(4, &[Part::Read(&[4, 0, 2, 0]), Part::Write(1)]);
                driver.notify(4);
                for queue in [0, 2] {
                    (0..50).for_each(|_| driver.offer(queue, &[Part::Write(1100)]));
                    driver.notify(queue);
                }
                // Every other reset comes before all of that is done.
                if round % 2 == 0 {
                    continue;
                }
                let mut missing = vec![0, 2, 4];
                while !missing.is_empty() {
                    driver.wire.wait();
                    let pending = driver.get(INTERRUPT_STATUS);
                    driver.put(INTERRUPT_ACK, pending);
                    missing.retain(|&queue| driver.take_used(queue).is_empty());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    assert!(!driver.needs_reset());
}
