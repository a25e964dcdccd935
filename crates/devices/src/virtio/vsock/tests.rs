//! The guest's side is a driver that sends and takes packets; the host's are sockets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;

use super::packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::*;
use crate::virtio::driver::{Driver, Part};

const CID: u32 = 7;
/// The guest's and the host's port of the tests' stream.
const PORTS: Ports = Ports { guest: 1000, host: 80 };
/// Data that a buffer of the guest has room for.
const ROOM: u32 = 4096;
/// Where the guest's buffers for packets are.
const RECEIVED: u64 = 8 << 20;

/// Gives out the sockets that tests put in, and listens if there is a listener.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<Vec<(u32, OwnedFd)>>>, Option<Arc<UnixListener>>);

impl VsockHost for Host {
    fn connect(&self, port: u32) -> io::Result<OwnedFd> {
        let mut offered = self.0.lock().unwrap();
        let at = offered.iter().position(|&(offered, _)| offered == port);
        Ok(offered.remove(at.ok_or(ErrorKind::ConnectionRefused)?).1)
    }

    fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.1.as_ref().map(|listener| listener.as_fd())
    }
}

struct Guest {
    driver: Driver,
    host: Host,
    /// What it tells of its buffer.
    credit: (u32, u32),
    /// Buffers that it has offered.
    offered: u32,
}

impl Guest {
    fn new(host: Host) -> Self {
        let device = Vsock::new(CID, Arc::new(host.clone())).unwrap();
        let mut driver = Driver::new(Box::new(device));
        driver.start(0);
        Self { driver, host, credit: (1 << 20, 0), offered: 0 }
    }

    /// A guest with an open stream, and the host's end of it.
    fn connected() -> (Self, UnixStream) {
        let mut guest = Self::new(Host::default());
        let end = guest.offer(PORTS.host);
        assert_eq!(guest.ask(PORTS, op::REQUEST, 0, b""), [(op::RESPONSE, 0, 0)]);
        (guest, end)
    }

    /// Lets something listen at a port of the host, for one connection.
    fn offer(&self, port: u32) -> UnixStream {
        let (end, far) = UnixStream::pair().unwrap();
        end.set_nonblocking(true).unwrap();
        self.host.0.lock().unwrap().push((port, far.into()));
        end
    }

    fn header(&self, ports: Ports, op: u16) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: HOST_CID,
            src_port: ports.guest,
            dst_port: ports.host,
            kind: TYPE_STREAM,
            op,
            buf_alloc: self.credit.0,
            fwd_cnt: self.credit.1,
            ..Header::default()
        }
    }

    fn send_raw(&mut self, header: &Header, data: &[u8]) {
        self.driver.reuse_buffers();
        self.driver.request(TRANSMIT, &[Part::Read(&header.to_bytes()), Part::Read(data)]);
    }

    fn send(&mut self, ports: Ports, op: u16, flags: u32, data: &[u8]) {
        let header = Header { flags, len: data.len() as u32, ..self.header(ports, op) };
        self.send_raw(&header, data);
    }

    /// Takes all packets that there are.
    fn take(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            // Away from what is sent, which comes again and again to one place.
            self.driver.place_buffers(RECEIVED + 0x2000 * u64::from(self.offered % 256));
            self.offered += 1;
            self.driver.offer(RECEIVE, &[Part::Write(HEADER as u32), Part::Write(ROOM)]);
            self.driver.notify(RECEIVE);
            // What is done for one event of the host may lead to the next.
            (0..3).for_each(|_| self.driver.work());
            let used = self.driver.take_used(RECEIVE);
            if used.is_empty() {
                // Its last buffer stays there: the next packet is in it.
                return all;
            }
            for used in used {
                let header = Header::parse(used.written[..HEADER].try_into().unwrap());
                assert_eq!(used.len, HEADER as u32 + header.len);
                all.push((header, used.written[HEADER..][..header.len as usize].to_vec()));
            }
        }
    }

    /// Sends a packet and returns operation, flags and length of those that come.
    fn ask(&mut self, ports: Ports, op: u16, flags: u32, data: &[u8]) -> Vec<(u16, u32, u32)> {
        self.send(ports, op, flags, data);
        self.heard()
    }

    fn heard(&mut self) -> Vec<(u16, u32, u32)> {
        self.take().iter().map(|(header, _)| (header.op, header.flags, header.len)).collect()
    }
}

fn read(end: &mut UnixStream) -> Vec<u8> {
    let mut data = Vec::new();
    match end.read_to_end(&mut data) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    data
}

#[test]
fn bytes_go_both_ways_once_the_guest_is_connected() {
    let (mut guest, mut end) = Guest::connected();

    assert_eq!(guest.ask(PORTS, op::RW, 0, b"to the host"), []);
    end.write_all(b"to the guest").unwrap();
    let packets = guest.take();

    assert_eq!(read(&mut end), b"to the host");
    let [(header, data)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(data, b"to the guest");
    assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID.into()));
    assert_eq!((header.src_port, header.dst_port), (PORTS.host, PORTS.guest));
    assert_eq!((header.buf_alloc, header.fwd_cnt), (BUFFER, 11));
}

#[test]
fn where_nobody_listens_the_guest_gets_a_reset() {
    let mut guest = Guest::new(Host::default());

    assert_eq!(guest.ask(PORTS, op::REQUEST, 0, b""), [(op::RST, 0, 0)]);
}

#[test]
fn packets_of_no_stream_are_answered_with_a_reset_but_a_reset_is_not() {
    let mut guest = Guest::new(Host::default());

    for op in [op::RW, op::SHUTDOWN, op::CREDIT_REQUEST, op::CREDIT_UPDATE, op::RESPONSE, 99] {
        assert_eq!(guest.ask(PORTS, op, 0, b""), [(op::RST, 0, 0)], "{op}");
    }
    assert_eq!(guest.ask(PORTS, op::RST, 0, b""), []);
}

#[test]
fn each_half_ends_by_itself() {
    let (mut guest, mut end) = Guest::connected();

    guest.send(PORTS, op::RW, 0, b"last words");
    assert_eq!(guest.ask(PORTS, op::SHUTDOWN, SHUTDOWN_SEND, b""), []);
    let mut heard = Vec::new();
    assert_eq!(end.read_to_end(&mut heard).unwrap(), 10);
    end.write_all(b"still talking").unwrap();
    assert_eq!(guest.heard(), [(op::RW, 0, 13)]);
    end.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.heard(), [(op::SHUTDOWN, SHUTDOWN_SEND, 0)]);

    // As a guest's close does.
    let closed = guest.ask(PORTS, op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, b"");

    assert_eq!(closed, [(op::RST, 0, 0)]);
    assert_eq!(guest.ask(PORTS, op::RW, 0, b"x"), [(op::RST, 0, 0)]);
}

#[test]
fn a_host_that_finishes_first_still_hears_the_guest() {
    let (mut guest, mut end) = Guest::connected();

    end.write_all(b"question").unwrap();
    end.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.heard(), [(op::RW, 0, 8), (op::SHUTDOWN, SHUTDOWN_SEND, 0)]);
    assert_eq!(guest.ask(PORTS, op::RW, 0, b"answer"), []);

    assert_eq!(read(&mut end), b"answer");
}

#[test]
fn a_guest_that_reads_no_more_makes_the_hosts_writes_fail() {
    let (mut guest, mut end) = Guest::connected();

    guest.ask(PORTS, op::SHUTDOWN, SHUTDOWN_RECEIVE, b"");

    assert_eq!(end.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_host_that_is_gone_is_told_to_the_guest_at_once() {
    let (mut guest, end) = Guest::connected();

    drop(end);

    assert_eq!(guest.heard(), [(op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, 0)]);
    assert_eq!(guest.ask(PORTS, op::RST, 0, b""), []);
}

#[test]
fn no_more_is_sent_than_the_guest_has_room_for() {
    let (mut guest, mut end) = Guest::connected();
    guest.credit = (10, 0);
    guest.ask(PORTS, op::CREDIT_UPDATE, 0, b"");

    end.write_all(b"0123456789abcdef").unwrap();
    assert_eq!(guest.heard(), [(op::RW, 0, 10), (op::CREDIT_REQUEST, 0, 0)]);
    assert_eq!(guest.heard(), []);
    guest.credit = (10, 4);

    assert_eq!(guest.ask(PORTS, op::CREDIT_UPDATE, 0, b"")[0], (op::RW, 0, 4));
}

#[test]
fn a_guest_whose_count_makes_no_sense_has_no_room() {
    let (mut guest, mut end) = Guest::connected();
    guest.credit = (10, 5000);

    guest.ask(PORTS, op::CREDIT_UPDATE, 0, b"");
    end.write_all(b"0123456789").unwrap();

    assert_eq!(guest.heard(), [(op::CREDIT_REQUEST, 0, 0)]);
}

#[test]
fn what_the_host_does_not_read_waits_up_to_the_credit_and_then_comes_whole() {
    let (mut guest, mut end) = Guest::connected();
    let piece: Vec<u8> = (0..32 << 10).map(|at| (at * 7 % 251) as u8).collect();
    let (mut sent, mut forwarded, mut received) = (0_u32, 0_u32, Vec::new());
    const TOTAL: u32 = 4 << 20;

    while sent < TOTAL || received.len() < TOTAL as usize {
        while sent < TOTAL && sent - forwarded + piece.len() as u32 <= BUFFER {
            guest.send(PORTS, op::RW, 0, &piece);
            sent += piece.len() as u32;
        }
        let packets = guest.take();
        if let Some((header, _)) = packets.last() {
            assert_eq!(header.op, op::CREDIT_UPDATE);
            forwarded = header.fwd_cnt;
        } else {
            // The guest has used its credit: the host has to read before it gets more.
            let read = read(&mut end);
            assert!(!read.is_empty(), "the stream is stuck at {sent}");
            received.extend(read);
        }
    }

    assert!(received.chunks(piece.len()).all(|chunk| chunk == piece));
}

#[test]
fn what_goes_beyond_the_credit_breaks_the_stream() {
    let (mut guest, end) = Guest::connected();
    let piece = vec![0; 64 << 10];

    let mut answer = Vec::new();
    // The host's socket holds some too, and reads nothing.
    for _ in 0..64 {
        answer = guest.ask(PORTS, op::RW, 0, &piece);
        if answer.iter().any(|&(op, ..)| op == op::RST) {
            break;
        }
    }

    assert_eq!(answer.last(), Some(&(op::RST, 0, 0)));
    drop(end);
}

#[test]
fn what_a_finished_guest_sent_still_reaches_a_slow_host() {
    let (mut guest, mut end) = Guest::connected();
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while sent < 8 * piece.len() {
        if guest.ask(PORTS, op::RW, 0, &piece).is_empty() && sent > 3 * piece.len() {
            sent += piece.len();
            break;
        }
        sent += piece.len();
    }

    // A guest that does not wait for the answer to its close.
    guest.ask(PORTS, op::SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, b"");
    assert_eq!(guest.ask(PORTS, op::RST, 0, b""), []);
    let mut received = 0;
    let ended = loop {
        let mut data = vec![0; 1 << 20];
        match end.read(&mut data) {
            Ok(0) => break true,
            Ok(count) => received += count,
            Err(_) => guest.driver.work(),
        }
    };

    assert_eq!((received, ended), (sent, true));
}

/// A guest whose device listens at a path, which is removed with it.
struct Listening(PathBuf);

impl Listening {
    fn new(name: &str) -> (Self, Guest) {
        let name = format!("cloister-vsock-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        (Self(path), Guest::new(Host(Arc::default(), Some(Arc::new(listener)))))
    }

    fn client(&self, line: &str) -> UnixStream {
        let mut client = UnixStream::connect(&self.0).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_client_of_the_host_reaches_the_port_that_it_names() {
    let (listening, mut guest) = Listening::new("reaches");

    let mut client = listening.client("CONNECT 52\nearly");
    let packets = guest.take();
    let [(request, _)] = &packets[..] else { panic!("{packets:?}") };
    let ports = Ports { guest: 52, host: request.src_port };
    assert_eq!((request.op, request.dst_port), (op::REQUEST, 52));
    assert_eq!(read(&mut client), b"");

    let answer = guest.ask(ports, op::RESPONSE, 0, b"");
    assert_eq!(answer, [(op::RW, 0, 5)]);
    guest.ask(ports, op::RW, 0, b"hello");

    assert_eq!(read(&mut client), format!("OK {}\nhello", ports.host).as_bytes());
}

#[test]
fn a_client_that_the_guest_refuses_is_closed() {
    let (listening, mut guest) = Listening::new("refused");
    let mut client = listening.client("CONNECT 52\n");
    let ports = Ports { guest: 52, host: guest.take()[0].0.src_port };

    assert_eq!(guest.ask(ports, op::RST, 0, b""), []);

    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn clients_that_say_nothing_with_a_meaning_are_closed_and_the_slow_ones_are_waited_for() {
    let (listening, mut guest) = Listening::new("nonsense");
    for line in ["GET / HTTP/1.0\r\n", "CONNECT 4294967295\n", "CONNECT 000000000000000000000"] {
        let mut client = listening.client(line);
        assert_eq!(guest.heard(), [], "{line}");
        // With something unread the end is a reset.
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)), "{line}");
    }

    let mut slow = listening.client("CONN");
    assert_eq!(guest.heard(), []);
    slow.write_all(b"ECT 1\n").unwrap();

    assert_eq!(guest.heard(), [(op::REQUEST, 0, 0)]);
}

#[test]
fn packets_that_no_driver_sends_harm_only_their_stream() {
    let (mut guest, mut end) = Guest::connected();
    let other = Ports { guest: 1001, ..PORTS };
    let good = guest.header(other, op::RW);
    for (header, answered) in [
        (Header { len: u32::MAX, ..good }, true),
        (Header { len: 5, ..good }, true),
        (Header { kind: 2, op: op::REQUEST, ..good }, true),
        (Header { op: 0xffff, ..good }, true),
        (Header { src_cid: 9, ..good }, false),
        (Header { dst_cid: 1, ..good }, false),
        (Header { src_port: u32::MAX, op: op::REQUEST, ..good }, true),
    ] {
        let _end = guest.offer(PORTS.host);
        guest.send(other, op::REQUEST, 0, b"");
        guest.take();
        guest.send_raw(&header, b"four");
        assert_eq!(guest.heard() == [(op::RST, 0, 0)], answered, "{header:?}");
        guest.ask(other, op::RST, 0, b"");
    }
    guest.driver.request(TRANSMIT, &[Part::Read(b"no header")]);
    guest.driver.request(TRANSMIT, &[Part::Write(100)]);

    guest.send(PORTS, op::RW, 0, b"fine");
    assert_eq!(read(&mut end), b"fine");
    assert!(!guest.driver.needs_reset());
}

#[test]
fn a_guest_that_takes_no_resets_is_not_listened_to_for_ever() {
    let mut guest = Guest::new(Host::default());
    let header = guest.header(PORTS, op::RW).to_bytes();

    let mut taken = 0;
    for _ in 0..2 * MAX_RESETS {
        guest.driver.reuse_buffers();
        guest.driver.offer(TRANSMIT, &[Part::Read(&header)]);
        guest.driver.notify(TRANSMIT);
        let used = guest.driver.take_used(TRANSMIT).len();
        if used == 0 {
            break;
        }
        taken += used;
    }
    let resets = guest.take().len();
    taken += guest.driver.take_used(TRANSMIT).len();

    assert_eq!((taken, resets), (MAX_RESETS + 1, MAX_RESETS + 1));
}

#[test]
fn a_reset_of_the_device_ends_its_streams() {
    let (mut guest, mut end) = Guest::connected();

    guest.driver.start(0);

    assert_eq!(end.read(&mut [0; 1]).unwrap(), 0);
    let _end = guest.offer(PORTS.host);
    assert_eq!(guest.ask(PORTS, op::REQUEST, 0, b""), [(op::RESPONSE, 0, 0)]);
}

#[test]
fn a_thread_that_waits_sees_what_the_host_sends() {
    let host = Host::default();
    let mut io = crate::IoLoop::new().unwrap();
    let device = Vsock::new(CID, Arc::new(host.clone())).unwrap();
    let mut driver = Driver::on(&mut io, Box::new(device));
    driver.start(0);
    let mut guest = Guest { driver, host, credit: (1 << 20, 0), offered: 0 };
    let mut end = guest.offer(PORTS.host);

    crate::io::tests::with_thread(&io, |_| {
        let wire = guest.driver.wire.clone();
        let request = guest.header(PORTS, op::REQUEST).to_bytes();
        guest.driver.offer(RECEIVE, &[Part::Write(HEADER as u32)]);
        guest.driver.offer(RECEIVE, &[Part::Write(HEADER as u32 + ROOM)]);
        guest.driver.offer(TRANSMIT, &[Part::Read(&request)]);
        guest.driver.notify(TRANSMIT);
        let mut got = Vec::new();
        while got.len() < 2 {
            wire.wait();
            let pending = guest.driver.get(0x060);
            guest.driver.put(0x064, pending);
            for used in guest.driver.take_used(RECEIVE) {
                got.push(used);
                // Nothing wakes the thread but the socket.
                end.write_all(b"awake").unwrap();
            }
        }
        assert_eq!(got[1].written[HEADER..][..5], *b"awake");
    });
}
