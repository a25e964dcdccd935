//! One stream between a socket of the guest and a socket of the host: its credit, its two halves, its end.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::packet::{Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, count, op};

/// Bytes of the guest that wait for the host to read them: what the guest is told as its credit.
pub(super) const BUFFER: u32 = 256 << 10;

/// The other side broke the rules, or its end is gone: the stream is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Broken;

/// A stream.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// What is to be told of the opening, if anything: REQUEST or RESPONSE.
    opening: Option<u16>,
    /// The guest has not accepted the connection yet.
    awaits_response: bool,
    to_host: ToHost,
    to_guest: ToGuest,
    /// Flags of SHUTDOWN that the guest was told.
    told_shutdown: u32,
    /// The guest has reset the stream, after it had sent all that it had to: what is still on its way to
    /// the host gets there.
    guest_is_gone: bool,
}

/// The half from the guest to the host. Counts are modulo 2^32.
#[derive(Debug, Default)]
struct ToHost {
    /// What the host did not take yet: [`BUFFER`] at most.
    backlog: VecDeque<u8>,
    /// Bytes that have left the backlog.
    forwarded: u32,
    /// `forwarded` as the guest was told last.
    told: u32,
    /// The guest asked for the count.
    asked: bool,
    /// The guest sends no more.
    finished: bool,
    /// The host was told so.
    closed: bool,
    /// The host reads no more.
    refused: bool,
}

/// The half from the host to the guest. Counts are modulo 2^32.
#[derive(Debug, Default)]
struct ToGuest {
    /// Bytes that the guest was sent.
    sent: u32,
    /// Bytes that have left the guest's buffer, as it said last, and that buffer's size.
    forwarded: u32,
    allocated: u32,
    /// The socket may have something, as far as is known.
    readable: bool,
    /// The guest was asked for its count.
    asked: bool,
    /// The host sends no more.
    finished: bool,
    /// The guest reads no more.
    refused: bool,
}

impl ToGuest {
    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        self.allocated.saturating_sub(self.sent.wrapping_sub(self.forwarded))
    }
}

/// A packet for the guest, less what all packets of a stream have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outgoing {
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes of data.
    pub(super) len: usize,
    pub(super) fwd_cnt: u32,
}

impl Connection {
    /// A stream that the guest asked for with `header`, to a socket that is connected.
    pub(super) fn accepted(socket: OwnedFd, header: &Header) -> Self {
        let mut this = Self::new(socket, op::RESPONSE);
        this.learn_credit(header);
        this
    }

    /// A stream that the host asks the guest for.
    pub(super) fn requested(socket: OwnedFd) -> Self {
        Self { awaits_response: true, ..Self::new(socket, op::REQUEST) }
    }

    fn new(socket: OwnedFd, opening: u16) -> Self {
        Self {
            socket,
            opening: Some(opening),
            awaits_response: false,
            to_host: ToHost::default(),
            to_guest: ToGuest::default(),
            told_shutdown: 0,
            guest_is_gone: false,
        }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// What the socket is to be watched for; errors and the host's end are noticed in any case. `None`
    /// once there is nothing left to notice.
    pub(super) fn interest(&self) -> Option<EventFlags> {
        let mut flags = EventFlags::ONESHOT;
        let reads = !self.awaits_response && !self.guest_is_gone && !self.to_guest.refused;
        if reads && !self.to_guest.finished && !self.to_guest.readable {
            flags |= EventFlags::IN;
        }
        if !self.to_host.backlog.is_empty() {
            flags |= EventFlags::OUT;
        }
        let over = self.to_host.refused && flags == EventFlags::ONESHOT;
        (!over).then_some(flags)
    }

    /// The socket is ready for something.
    pub(super) fn ready(&mut self, events: EventFlags) {
        if events.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.to_guest.readable = true;
        }
        if events.intersects(EventFlags::HUP | EventFlags::ERR) {
            // The host reads no more.
            self.to_host.refused = true;
        }
        self.flush();
    }

    /// The guest's credit and count, which each of its packets says.
    pub(super) fn learn_credit(&mut self, header: &Header) {
        self.to_guest.allocated = header.buf_alloc;
        self.to_guest.forwarded = header.fwd_cnt;
        self.to_guest.asked = false;
    }

    /// The guest accepts the connection that the host asked for. Returns whether it was still to.
    pub(super) fn confirm(&mut self) -> bool {
        std::mem::take(&mut self.awaits_response)
    }

    /// Takes a packet's `len` bytes, which come in pieces by [`Connection::receive`].
    ///
    /// # Errors
    /// The guest sends what it has no credit for, or has said that it sends no more, or is not connected.
    pub(super) fn expect(&self, len: u32) -> Result<(), Broken> {
        let waiting = u32::try_from(self.to_host.backlog.len()).unwrap_or(u32::MAX);
        let fits = waiting.checked_add(len).is_some_and(|all| all <= BUFFER);
        if fits && !self.to_host.finished && !self.awaits_response { Ok(()) } else { Err(Broken) }
    }

    /// Passes bytes on to the host, or keeps them until it takes them.
    pub(super) fn receive(&mut self, data: &[u8]) {
        let taken = if self.to_host.backlog.is_empty() { self.write(data) } else { 0 };
        self.to_host.backlog.extend(&data[taken..]);
    }

    /// The guest shuts halves down.
    pub(super) fn shut_down(&mut self, flags: u32) {
        if flags & SHUTDOWN_SEND != 0 {
            self.to_host.finished = true;
            self.flush();
        }
        if flags & SHUTDOWN_RECEIVE != 0 && !self.to_guest.refused {
            self.to_guest.refused = true;
            // The host's writes fail from now on. If it cannot be told, it is gone.
            let _ = shutdown(&self.socket, Shutdown::Read);
        }
    }

    /// The guest wants to know how many of its bytes have left.
    pub(super) fn ask_credit(&mut self) {
        self.to_host.asked = true;
    }

    /// The guest is gone. Returns whether the stream is over: not where the guest had said that it was
    /// finished, and the host has not read all of it yet.
    pub(super) fn abandon(&mut self) -> bool {
        self.guest_is_gone = true;
        self.is_over()
    }

    /// Whether nothing is left to do but to forget the stream.
    pub(super) fn is_over(&self) -> bool {
        let delivered = self.to_host.backlog.is_empty() || self.to_host.refused;
        self.guest_is_gone && (delivered || !self.to_host.finished)
    }

    /// Whether the guest has shut both halves down, and all that it sent is with the host.
    pub(super) fn is_finished(&self) -> bool {
        self.to_guest.refused && self.to_host.finished && self.to_host.backlog.is_empty()
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn has_packet(&self) -> bool {
        if self.guest_is_gone {
            return false;
        }
        if self.opening.is_some() || self.awaits_response {
            return self.opening.is_some();
        }
        self.is_finished()
            || self.untold_shutdown() != 0
            || self.owes_credit()
            || self.reads() && (self.to_guest.credit() > 0 || !self.to_guest.asked)
    }

    /// The next packet for the guest, with its data at the front of `data`; none if there is nothing to
    /// say after all.
    ///
    /// # Errors
    /// The stream is over: the guest is to get a reset.
    pub(super) fn next_packet(&mut self, data: &mut [u8]) -> Result<Option<Outgoing>, Broken> {
        if let Some(op) = self.opening.take() {
            return Ok(Some(self.packet(op, 0, 0)));
        }
        if self.is_finished() {
            return Err(Broken);
        }
        if self.reads() && self.to_guest.credit() > 0 {
            let room = usize::try_from(self.to_guest.credit()).unwrap_or(usize::MAX);
            let room = room.min(data.len());
            match self.read(&mut data[..room])? {
                0 => {}
                len => {
                    self.to_guest.sent = self.to_guest.sent.wrapping_add(count(len));
                    return Ok(Some(self.packet(op::RW, 0, len)));
                }
            }
        }
        let flags = self.untold_shutdown();
        if flags != 0 {
            self.told_shutdown |= flags;
            return Ok(Some(self.packet(op::SHUTDOWN, self.told_shutdown, 0)));
        }
        if self.owes_credit() {
            return Ok(Some(self.packet(op::CREDIT_UPDATE, 0, 0)));
        }
        if self.reads() && self.to_guest.credit() == 0 && !self.to_guest.asked {
            self.to_guest.asked = true;
            return Ok(Some(self.packet(op::CREDIT_REQUEST, 0, 0)));
        }
        Ok(None)
    }

    /// Every packet tells the count, and so answers the question for it.
    fn packet(&mut self, op: u16, flags: u32, len: usize) -> Outgoing {
        self.to_host.told = self.to_host.forwarded;
        self.to_host.asked = false;
        Outgoing { op, flags, len, fwd_cnt: self.to_host.forwarded }
    }

    /// Whether the socket is to be read.
    fn reads(&self) -> bool {
        let half = &self.to_guest;
        half.readable && !half.finished && !half.refused
    }

    /// Flags of SHUTDOWN that the guest is still to be told.
    fn untold_shutdown(&self) -> u32 {
        let mut flags = 0;
        if self.to_guest.finished {
            flags |= SHUTDOWN_SEND;
        }
        // A guest that sends no more need not know.
        if self.to_host.refused && !self.to_host.finished {
            flags |= SHUTDOWN_RECEIVE;
        }
        flags & !self.told_shutdown
    }

    /// Whether the guest is to be told how many of its bytes have left: it asked, or may wait for room. A
    /// guest that waits has used all of its credit, so that half of it comes free before the backlog is
    /// empty again.
    fn owes_credit(&self) -> bool {
        let half = &self.to_host;
        half.asked || half.forwarded.wrapping_sub(half.told) >= BUFFER / 2
    }

    /// Reads from the socket. 0 if there is nothing, or the host's end.
    fn read(&mut self, data: &mut [u8]) -> Result<usize, Broken> {
        loop {
            match recv(&self.socket, &mut *data, RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.to_guest.finished = true,
                Ok((count, _)) => return Ok(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => self.to_guest.readable = false,
                // The host's end is gone, with something unread.
                Err(_) => return Err(Broken),
            }
            return Ok(0);
        }
    }

    /// Writes as much of the backlog as the host takes.
    fn flush(&mut self) {
        let mut backlog = std::mem::take(&mut self.to_host.backlog);
        while !backlog.is_empty() {
            let (front, _) = backlog.as_slices();
            let (taken, wanted) = (self.write(front), front.len());
            backlog.drain(..taken);
            if taken < wanted {
                break;
            }
        }
        self.to_host.backlog = backlog;
        if self.to_host.backlog.is_empty() && self.to_host.finished && !self.to_host.closed {
            self.to_host.closed = true;
            // If it cannot be told, it is gone.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// Writes some of `data` to the socket and returns how much. Where the host reads no more, all of it
    /// counts as written.
    fn write(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            if self.to_host.refused {
                done = data.len();
                break;
            }
            match send(&self.socket, &data[done..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.to_host.refused = true,
            }
        }
        self.to_host.forwarded = self.to_host.forwarded.wrapping_add(count(done));
        done
    }
}
