//! The guest's side is a driver of rings; the other's is a socket, or a peer that does as it is told.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use super::checksum::tests::frames;
use super::checksum::{self, ETHERNET};
use super::header::{DATA_VALID, Header, NEEDS_CSUM, gso};
use super::*;
use crate::virtio::driver::{Driver, Part, Used};

mod queues;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const ADDRESS: Mac = [0x52, 0x54, 0, 1, 2, 3];
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const GENERATION: u64 = 0x0fc;
/// The bit of the interrupt status that says that the configuration has changed.
const CONFIG_CHANGE: u32 = 2;

/// A peer that keeps what it is sent and gives what it is told to.
#[derive(Default)]
struct Scripted {
    reads_headers: bool,
    to_guest: VecDeque<Vec<u8>>,
    from_guest: Vec<Vec<u8>>,
    /// Packets that it has room for.
    room: Option<usize>,
    told: Vec<GuestOffloads>,
}

impl NetPeer for Scripted {
    fn reads_headers(&self) -> bool {
        self.reads_headers
    }

    fn offload(&mut self, guest: GuestOffloads) {
        self.told.push(guest);
    }

    fn is_up(&self) -> bool {
        true
    }

    fn send(&mut self, packet: &mut [u8]) -> bool {
        match &mut self.room {
            Some(0) => return false,
            Some(room) => *room -= 1,
            None => {}
        }
        self.from_guest.push(packet.to_vec());
        true
    }

    fn receive(&mut self, packet: &mut [u8]) -> Option<usize> {
        let next = self.to_guest.pop_front()?;
        packet[..next.len()].copy_from_slice(&next);
        Some(next.len())
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn device(peer: Arc<Mutex<dyn NetPeer>>) -> Box<Net> {
    Box::new(Net::new(ADDRESS, None, [peer]).unwrap())
}

fn scripted(features: u64, peer: Scripted) -> (Driver, Arc<Mutex<Scripted>>) {
    let peer = Arc::new(Mutex::new(peer));
    let mut driver = Driver::new(device(peer.clone()));
    driver.start(features);
    (driver, peer)
}

/// A driver whose device is at one end of a stream, and the other end.
fn streamed(features: u64) -> (Driver, UnixStream) {
    let (own, other) = UnixStream::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    let mut driver =
        Driver::new(device(Arc::new(Mutex::new(StreamPeer::connected("test", own.into())))));
    driver.start(features);
    (driver, other)
}

fn packet(header: Header, frame: &[u8]) -> Vec<u8> {
    let mut packet = [&[0; NET_HEADER], frame].concat();
    header.put(&mut packet);
    packet
}

fn plain(frame: &[u8]) -> Vec<u8> {
    packet(Header::default(), frame)
}

/// A frame of `len` bytes that are not all the same.
fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn in_stream(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn transmit(driver: &mut Driver, packet: &[u8]) -> Used {
    driver.reuse_buffers();
    driver.request(TRANSMIT, &[Part::Read(packet)])
}

/// Offers a buffer of `len` bytes for packets and has the device look.
fn offer(driver: &mut Driver, lens: &[u32]) {
    for &len in lens {
        driver.offer(RECEIVE, &[Part::Write(len)]);
    }
    driver.notify(RECEIVE);
}

/// The host has something for the device: two turns, as events of the host need.
fn work(driver: &Driver) {
    (0..2).for_each(|_| driver.work());
}

#[test]
fn frames_go_both_ways_after_their_lengths() {
    let (mut driver, mut other) = streamed(0);
    let (out, back) = (frame(60), frame(1514));

    let used = transmit(&mut driver, &plain(&out));
    let mut sent = vec![0; 64];
    other.read_exact(&mut sent).unwrap();
    offer(&mut driver, &[2000]);
    other.write_all(&in_stream(&back)).unwrap();
    work(&driver);
    let received = driver.take_used(RECEIVE);

    assert_eq!((used.len, sent), (0, in_stream(&out)));
    assert_eq!(received[0].len as usize, NET_HEADER + back.len());
    let header = Header { num_buffers: 1, ..Header::default() };
    assert_eq!(received[0].written[..NET_HEADER + back.len()], packet(header, &back));
}

#[test]
fn a_stream_may_come_in_any_pieces() {
    let (mut driver, mut other) = streamed(0);
    let all: Vec<Vec<u8>> = (14..40).map(frame).collect();
    let bytes: Vec<u8> = all.iter().flat_map(|frame| in_stream(frame)).collect();
    offer(&mut driver, &[100; 26]);

    for byte in bytes {
        other.write_all(&[byte]).unwrap();
        work(&driver);
    }

    let received = driver.take_used(RECEIVE);
    let frames: Vec<_> =
        received.iter().map(|used| &used.written[NET_HEADER..used.len as usize]).collect();
    assert_eq!(frames, all);
}

#[test]
fn frames_shorter_than_a_header_are_passed_over() {
    let (mut driver, mut other) = streamed(0);
    offer(&mut driver, &[2000]);

    for len in [0, 1, 13, 60] {
        other.write_all(&in_stream(&frame(len))).unwrap();
    }
    work(&driver);

    let received = driver.take_used(RECEIVE);
    assert_eq!((received.len(), received[0].len as usize), (1, NET_HEADER + 60));
}

/// A peer that has a frame of nothing each time that it is asked.
struct Empty;

impl NetPeer for Empty {
    fn is_up(&self) -> bool {
        true
    }

    fn send(&mut self, _: &mut [u8]) -> bool {
        true
    }

    fn receive(&mut self, _: &mut [u8]) -> Option<usize> {
        Some(NET_HEADER)
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[test]
fn a_peer_that_sends_nothing_without_end_leaves_other_devices_their_turn() {
    let mut driver = Driver::new(device(Arc::new(Mutex::new(Empty))));
    driver.start(0);

    offer(&mut driver, &[2000]);
    work(&driver);

    assert!(driver.take_used(RECEIVE).is_empty());
}

#[test]
fn a_stream_of_lengths_alone_comes_frame_by_frame() {
    let (own, mut other) = UnixStream::pair().unwrap();
    let mut peer = StreamPeer::connected("test", own.into());
    other.write_all(&[0; 8]).unwrap();
    let mut packet = vec![0; MAX_PACKET];

    assert_eq!(
        [(); 3].map(|()| peer.receive(&mut packet)),
        [Some(NET_HEADER), Some(NET_HEADER), None]
    );
}

#[test]
fn a_peer_that_is_gone_or_sends_an_endless_frame_takes_the_link_down() {
    for garbage in [&b""[..], &[0xff; 4], &[0, 1, 0x10, 1]] {
        let (mut driver, mut other) = streamed(STATUS);
        assert_eq!(driver.config(6, 2), [1, 0]);
        let generation = driver.get(GENERATION);
        offer(&mut driver, &[2000]);

        other.write_all(garbage).unwrap();
        if garbage.is_empty() {
            drop(other);
        }
        work(&driver);

        assert_eq!(driver.config(6, 2), [0, 0], "{garbage:?}");
        assert_ne!(driver.get(GENERATION), generation);
        assert_eq!(driver.get(INTERRUPT_STATUS) & CONFIG_CHANGE, CONFIG_CHANGE);
        // A cable that leads nowhere takes everything.
        transmit(&mut driver, &plain(&frame(60)));
        assert!(!driver.needs_reset());
    }
}

#[test]
fn the_link_goes_down_too_when_nothing_can_be_sent_any_more() {
    let (mut driver, other) = streamed(STATUS);
    drop(other);

    transmit(&mut driver, &plain(&frame(60)));

    assert_eq!(driver.config(6, 2), [0, 0]);
}

#[test]
fn what_a_peer_sent_before_it_went_is_received_all_the_same() {
    let (mut driver, mut other) = streamed(STATUS);
    // Its end has something unread, so that the host says at once that it is reset.
    transmit(&mut driver, &plain(&frame(60)));
    other.write_all(&[in_stream(&frame(60)), in_stream(&frame(61))].concat()).unwrap();
    drop(other);

    transmit(&mut driver, &plain(&frame(60)));
    offer(&mut driver, &[2000; 3]);
    work(&driver);

    let lens: Vec<_> = driver.take_used(RECEIVE).iter().map(|used| used.len as usize).collect();
    assert_eq!(lens, [NET_HEADER + 60, NET_HEADER + 61]);
    assert_eq!(driver.config(6, 2), [0, 0]);
}

#[test]
fn peers_of_a_listener_come_one_after_another() {
    let path = std::env::temp_dir().join(format!("cloister-net-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let peer = StreamPeer::listening("test", listener.into());
    let mut driver = Driver::new(device(Arc::new(Mutex::new(peer))));
    driver.start(STATUS);
    offer(&mut driver, &[2000; 4]);
    assert_eq!(driver.config(6, 2), [0, 0]);

    for _ in 0..2 {
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.write_all(&in_stream(&frame(60))).unwrap();
        work(&driver);
        assert_eq!((driver.config(6, 2), driver.take_used(RECEIVE).len()), (vec![1, 0], 1));
        // The beginning of a frame that the next one does not go on with.
        peer.write_all(&[0, 0]).unwrap();
        drop(peer);
        work(&driver);
        assert_eq!(driver.config(6, 2), [0, 0]);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_stream_that_is_full_holds_packets_back_and_loses_none() {
    let (mut driver, mut other) = streamed(0);
    let all: Vec<Vec<u8>> = (0..100).map(|at| frame(20_000 + at)).collect();
    let expected: Vec<u8> = all.iter().flat_map(|frame| in_stream(frame)).collect();
    driver.reuse_buffers();
    for frame in &all {
        driver.offer(TRANSMIT, &[Part::Read(&plain(frame))]);
    }
    driver.notify(TRANSMIT);
    assert!(driver.take_used(TRANSMIT).len() < 100);

    let mut read: Vec<u8> = Vec::new();
    while read.len() < expected.len() {
        let mut piece = vec![0; 9999];
        // The last frames are in the socket when all are given back.
        match other.read(&mut piece) {
            Ok(count) => read.extend(&piece[..count]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        work(&driver);
    }

    assert!(read == expected);
}

#[test]
fn a_packet_that_the_peer_has_no_room_for_waits() {
    let (mut driver, peer) = scripted(0, Scripted { room: Some(1), ..Scripted::default() });
    for len in [60, 70] {
        driver.offer(TRANSMIT, &[Part::Read(&plain(&frame(len)))]);
    }
    driver.notify(TRANSMIT);
    assert_eq!(driver.take_used(TRANSMIT).len(), 1);

    peer.lock().unwrap().room = None;
    driver.notify(TRANSMIT);

    assert_eq!(driver.take_used(TRANSMIT).len(), 1);
    assert_eq!(peer.lock().unwrap().from_guest[1], plain(&frame(70)));
}

#[test]
fn checksums_that_the_driver_leaves_are_completed() {
    let (mut driver, mut other) = streamed(CSUM);
    for (mut frame, csum_start, csum_offset) in frames(b"payload") {
        let header = Header { flags: NEEDS_CSUM, csum_start, csum_offset, ..Header::default() };

        transmit(&mut driver, &packet(header, &frame));

        let mut sent = vec![0; 4 + frame.len()];
        other.read_exact(&mut sent).unwrap();
        checksum::complete(&mut frame, csum_start, csum_offset);
        assert_eq!(sent, in_stream(&frame));
        assert!(checksum::is_right(&frame));
    }
}

#[test]
fn what_a_hostile_driver_asks_for_is_dropped_and_the_next_packet_is_sent() {
    let good = Header { flags: NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Header::default() };
    for (features, header) in [
        (CSUM, Header { csum_start: 60, ..good }),
        (CSUM, Header { csum_start: 0xffff, csum_offset: 0xffff, ..good }),
        (CSUM, Header { csum_offset: 25, ..good }),
        (0, good),
        (CSUM, Header { gso_type: gso::TCPV4, gso_size: 1, ..good }),
        (CSUM, Header { gso_type: gso::TCPV6, ..good }),
        (CSUM, Header { gso_type: 3, ..good }),
        (CSUM, Header { gso_type: 0xff, ..good }),
    ] {
        let (mut driver, peer) = scripted(features, Scripted::default());

        transmit(&mut driver, &packet(header, &frame(60)));
        assert!(peer.lock().unwrap().from_guest.is_empty(), "{header:?}");
        transmit(&mut driver, &plain(&frame(60)));

        assert_eq!(peer.lock().unwrap().from_guest, [plain(&frame(60))]);
    }
}

#[test]
fn chains_that_are_no_packets_are_given_back() {
    let (mut driver, peer) = scripted(0, Scripted::default());
    let (short, long) = (vec![0; NET_HEADER + ETHERNET - 1], vec![0; MAX_PACKET + 1]);

    for parts in [
        &[Part::Read(&short)][..],
        &[Part::Read(&long)],
        &[Part::Write(100)],
        &[Part::Read(b"")],
        &[Part::Read(&short), Part::Write(1 << 20)],
    ] {
        driver.reuse_buffers();
        assert_eq!(driver.request(TRANSMIT, parts).len, 0);
    }
    assert!(peer.lock().unwrap().from_guest.is_empty());
    let whole = plain(&frame(14));
    let parts: Vec<_> = whole.chunks(5).map(Part::Read).collect();
    driver.request(TRANSMIT, &parts);

    assert_eq!(peer.lock().unwrap().from_guest, [whole]);
    assert!(!driver.needs_reset());
}

#[test]
fn a_large_packet_takes_as_many_buffers_as_it_needs() {
    let to_guest = [plain(&frame(MAX_FRAME)), plain(&frame(60))].into();
    let (mut driver, _) = scripted(MRG_RXBUF, Scripted { to_guest, ..Scripted::default() });
    let count = MAX_PACKET.div_ceil(1500);
    driver.place_buffers(8 << 20);

    offer(&mut driver, &vec![1500; count - 1]);
    assert!(driver.take_used(RECEIVE).is_empty());
    offer(&mut driver, &[1500]);
    let used = driver.take_used(RECEIVE);
    offer(&mut driver, &[1500]);
    let next = driver.take_used(RECEIVE);

    assert_eq!(used.len(), count);
    let whole: Vec<u8> =
        used.iter().flat_map(|used| &used.written[..used.len as usize]).copied().collect();
    let header = Header { num_buffers: count as u16, ..Header::default() };
    assert!(whole == packet(header, &frame(MAX_FRAME)));
    assert_eq!((next.len(), next[0].len as usize), (1, NET_HEADER + 60));
}

#[test]
fn a_packet_that_can_never_fit_is_dropped_and_the_next_gets_its_buffers() {
    for (features, buffers) in [(0, 1), (MRG_RXBUF, 256)] {
        let to_guest = [plain(&frame(MAX_FRAME)), plain(&frame(60))].into();
        let (mut driver, peer) = scripted(features, Scripted { to_guest, ..Scripted::default() });

        offer(&mut driver, &vec![100; buffers]);

        let used = driver.take_used(RECEIVE);
        assert_eq!((used.len(), used[0].len as usize), (1, NET_HEADER + 60));
        assert!(peer.lock().unwrap().to_guest.is_empty());
    }
}

#[test]
fn buffers_without_room_are_used_up_and_do_no_harm() {
    let to_guest = [plain(&frame(60))].into();
    let (mut driver, _) = scripted(MRG_RXBUF, Scripted { to_guest, ..Scripted::default() });

    driver.offer(RECEIVE, &[Part::Read(b"to read")]);
    offer(&mut driver, &[0, 1, 11, 100]);

    let lens: Vec<u32> = driver.take_used(RECEIVE).iter().map(|used| used.len).collect();
    assert_eq!(lens, [0, 0, 1, 11, 60]);
}

#[test]
fn right_checksums_are_said_to_be_so_if_the_driver_wants_to_know() {
    for features in [0, GUEST_CSUM] {
        for (mut frame, start, offset) in frames(b"payload") {
            let wrong = frame.clone();
            checksum::complete(&mut frame, start, offset);
            let to_guest = [plain(&frame), plain(&wrong)].into();
            let (mut driver, _) = scripted(features, Scripted { to_guest, ..Scripted::default() });

            offer(&mut driver, &[200, 200]);

            let used = driver.take_used(RECEIVE);
            let flags = if features == 0 { 0 } else { DATA_VALID };
            assert_eq!((used[0].written[0], used[1].written[0]), (flags, 0));
            assert_eq!(used[0].written[NET_HEADER..][..frame.len()], frame);
        }
    }
}

#[test]
fn a_peer_that_reads_headers_gets_them_and_learns_what_the_driver_takes() {
    let peer = Scripted { reads_headers: true, ..Scripted::default() };
    let (mut driver, peer) = scripted(CSUM | HOST_TSO4 | GUEST_CSUM | GUEST_TSO6, peer);
    let segments = Header {
        flags: NEEDS_CSUM,
        gso_type: gso::TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    let counted = Header { num_buffers: 7, ..segments };
    let other_version = Header { gso_type: gso::TCPV6, ..segments };

    transmit(&mut driver, &packet(counted, &frame(3000)));
    transmit(&mut driver, &packet(other_version, &frame(3000)));

    let peer = peer.lock().unwrap();
    assert_eq!(peer.from_guest, [packet(segments, &frame(3000))]);
    assert_eq!(peer.told, [GuestOffloads { checksum: true, tso4: false, tso6: true }]);
}

#[test]
fn what_a_peer_had_ready_for_another_driver_is_finished_or_dropped() {
    let (unfinished, csum_start, csum_offset) = frames(b"payload").remove(0);
    let left = Header { flags: NEEDS_CSUM, csum_start, csum_offset, ..Header::default() };
    let beyond = Header { csum_offset: 999, ..left };
    let segments = Header { gso_type: gso::TCPV4, gso_size: 100, ..left };
    let to_guest = [beyond, segments, left].map(|header| packet(header, &unfinished));
    let peer =
        Scripted { reads_headers: true, to_guest: to_guest.clone().into(), ..Scripted::default() };
    let (mut plain_driver, _) = scripted(0, peer);
    let peer = Scripted { reads_headers: true, to_guest: to_guest.into(), ..Scripted::default() };
    let (mut able_driver, _) = scripted(GUEST_CSUM | GUEST_TSO4, peer);

    offer(&mut plain_driver, &[200; 3]);
    offer(&mut able_driver, &[200; 3]);

    let used = plain_driver.take_used(RECEIVE);
    let [only] = &used[..] else { panic!("{used:?}") };
    assert_eq!(only.written[0], 0);
    assert!(checksum::is_right(&only.written[NET_HEADER..only.len as usize]));
    let used = able_driver.take_used(RECEIVE);
    let kinds: Vec<_> = used.iter().map(|used| (used.written[0], used.written[1])).collect();
    assert_eq!(kinds, [(NEEDS_CSUM, 0), (NEEDS_CSUM, gso::TCPV4), (NEEDS_CSUM, 0)]);
}

#[test]
fn a_driver_that_has_its_buffers_back_is_written_to_no_more() {
    for reset in [true, false] {
        let to_guest = [plain(&frame(3000))].into();
        let (mut driver, peer) = scripted(MRG_RXBUF, Scripted { to_guest, ..Scripted::default() });
        driver.place_buffers(8 << 20);
        // Not enough: the device keeps it.
        offer(&mut driver, &[1500]);

        if reset {
            driver.start(MRG_RXBUF);
        } else {
            driver.put(0x030, RECEIVE as u32);
            driver.put(0x044, 0);
            assert_eq!(driver.set_up_queue(RECEIVE, 256), 1);
        }
        peer.lock().unwrap().to_guest.push_back(plain(&frame(60)));
        driver.place_buffers(9 << 20);
        offer(&mut driver, &[1500, 1500, 1500]);

        let mut old = vec![0; 1500];
        driver.ram.read(8 << 20, &mut old).unwrap();
        assert!(old.iter().all(|&byte| byte == 0));
        // A stop of the queue loses no packet.
        let count = if reset { 1 } else { 2 + 1 };
        assert_eq!(driver.take_used(RECEIVE).len(), count, "reset: {reset}");
    }
}

#[test]
fn a_stream_goes_on_after_a_reset_with_the_frame_that_was_begun() {
    let (mut driver, mut other) = streamed(0);
    let large = frame(60_000);
    driver.reuse_buffers();
    for _ in 0..64 {
        driver.offer(TRANSMIT, &[Part::Read(&plain(&large))]);
    }
    driver.notify(TRANSMIT);
    let whole = driver.take_used(TRANSMIT).len();
    assert!(whole < 64);

    driver.start(0);
    let mut read: Vec<u8> = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while let Ok(count) = other.read(&mut piece) {
        read.extend(&piece[..count]);
        work(&driver);
    }
    transmit(&mut driver, &plain(&frame(77)));
    while let Ok(count) = other.read(&mut piece) {
        read.extend(&piece[..count]);
    }

    let expected: Vec<u8> = [vec![large; whole], vec![frame(77)]]
        .concat()
        .iter()
        .flat_map(|frame| in_stream(frame))
        .collect();
    assert!(read == expected);
}

#[test]
fn a_turn_leaves_other_devices_theirs() {
    let to_guest = vec![plain(&frame(60_000)); 40].into();
    let (mut driver, peer) = scripted(0, Scripted { to_guest, ..Scripted::default() });
    driver.place_buffers(8 << 20);

    offer(&mut driver, &[70_000; 40]);
    let first = driver.take_used(RECEIVE).len();
    while !peer.lock().unwrap().to_guest.is_empty() {
        driver.work();
    }

    assert!((1..40).contains(&first), "{first}");
    assert_eq!(first + driver.take_used(RECEIVE).len(), 40);
}

#[test]
fn the_configuration_has_address_status_and_mtu() {
    let peer = Arc::new(Mutex::new(Scripted::default()));
    let with_mtu = {
        let peer: Arc<Mutex<dyn NetPeer>> = peer.clone();
        Driver::new(Box::new(Net::new(ADDRESS, Some(65520), [peer]).unwrap()))
    };
    let without = Driver::new(device(peer));

    assert_eq!(with_mtu.config(0, 12), [&ADDRESS[..], &[1, 0, 0, 0, 0xf0, 0xff]].concat());
    assert_eq!(with_mtu.offered() & (MTU | SEGMENTS), MTU);
    assert_eq!(without.offered() & MTU, 0);
}

#[test]
fn a_thread_that_waits_sees_what_the_host_sends() {
    let (own, mut other) = UnixStream::pair().unwrap();
    let mut io = crate::IoLoop::new().unwrap();
    let peer = Arc::new(Mutex::new(StreamPeer::connected("test", own.into())));
    let mut driver = Driver::on(&mut io, device(peer));
    driver.start(0);

    crate::io::tests::with_thread(&io, |_| {
        let wire = driver.wire.clone();
        for round in 0..3 {
            offer(&mut driver, &[2000]);
            // Nothing wakes the thread but the socket.
            other.write_all(&in_stream(&frame(100 + round))).unwrap();
            let mut got = Vec::new();
            while got.is_empty() {
                wire.wait();
                let pending = driver.get(INTERRUPT_STATUS);
                driver.put(INTERRUPT_ACK, pending);
                got = driver.take_used(RECEIVE);
            }
            assert_eq!(got[0].len as usize, NET_HEADER + 100 + round);
        }
    });
}
