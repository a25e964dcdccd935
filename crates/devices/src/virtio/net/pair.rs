//! A pair of queues: a receive queue, a transmit queue, and the peer at the end of both.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::checksum::{self, ETHERNET};
use super::header::{DATA_VALID, Header, NEEDS_CSUM, NET_HEADER, gso};
use super::peer::NetPeer;
use super::{
    CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6, MAX_PACKET, MRG_RXBUF, TURN,
};
use crate::dma::GuestRam;
use crate::virtio::chain::Chain;
use crate::virtio::device::DeviceFault;
use crate::virtio::virtqueue::Virtqueue;

/// A pair of queues.
#[derive(Debug)]
pub(super) struct Pair {
    peer: Arc<Mutex<dyn NetPeer>>,
    reads_headers: bool,
    /// Readable when the peer is ready for what it is watched for.
    events: Arc<OwnedFd>,
    /// A packet for the guest, if its length is not 0.
    incoming: Box<[u8]>,
    incoming_len: usize,
    /// Buffers of the guest for it, in the order of the ring, and the run of the queue that they are of.
    buffers: Vec<Chain>,
    run: u64,
    outgoing: Box<[u8]>,
    /// The peer had no further packet.
    wants_packets: bool,
    /// The peer had no room for a packet.
    blocked: bool,
}

impl Pair {
    /// # Errors
    /// The host has no further descriptor.
    pub(super) fn new(peer: Arc<Mutex<dyn NetPeer>>) -> io::Result<Self> {
        let reads_headers = lock(&peer).reads_headers();
        Ok(Self {
            peer,
            reads_headers,
            events: Arc::new(epoll::create(CreateFlags::CLOEXEC)?),
            incoming: vec![0; MAX_PACKET].into(),
            incoming_len: 0,
            buffers: Vec::new(),
            run: 0,
            outgoing: vec![0; MAX_PACKET].into(),
            wants_packets: false,
            blocked: false,
        })
    }

    pub(super) fn peer(&self) -> MutexGuard<'_, dyn NetPeer + 'static> {
        lock(&self.peer)
    }

    pub(super) fn reads_headers(&self) -> bool {
        self.reads_headers
    }

    pub(super) fn events(&self) -> Arc<OwnedFd> {
        self.events.clone()
    }

    /// Watches the peer for what the queues wait for, once.
    pub(super) fn watch(&self) {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.wants_packets);
        flags.set(EventFlags::OUT, self.blocked);
        let peer = self.peer();
        let Some(watched) = peer.watched().filter(|_| !flags.is_empty()) else { return };
        let (data, flags) = (EventData::new_u64(0), flags | EventFlags::ONESHOT);
        // It may be another one than the last time.
        if epoll::modify(&self.events, watched, data, flags) == Err(Errno::NOENT)
            && let Err(error) = epoll::add(&self.events, watched, data, flags)
        {
            tracing::warn!(%error, "the host does not watch the network's peer");
        }
    }

    /// Watches the peer no more: an event that nobody takes is there for ever.
    pub(super) fn unwatch(&self) {
        if let Some(watched) = self.peer().watched() {
            // Err: it is not watched.
            let _ = epoll::delete(&self.events, watched);
        }
    }

    /// Takes the news that the peer is ready, and returns whether it has room for a packet that waits for it.
    pub(super) fn take_events(&mut self) -> bool {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = Vec::with_capacity(1);
        // An error is an interruption: the news is there still.
        let _ = epoll::wait(&self.events, spare_capacity(&mut events), Some(&NOW));
        let has_room = events.iter().any(|event| { event.flags } != EventFlags::IN);
        self.blocked &= !has_room;
        has_room
    }

    /// Gives packets to the guest as long as there are any, and room for them, in what it has `agreed` to.
    pub(super) fn receive(
        &mut self,
        agreed: u64,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        if std::mem::replace(&mut self.run, queue.run()) != self.run {
            self.buffers.clear();
        }
        self.wants_packets = false;
        let mut moved = 0;
        loop {
            if self.incoming_len == 0 {
                if moved > TURN {
                    queue.end_turn();
                    break;
                }
                let received = lock(&self.peer).receive(&mut self.incoming);
                let Some(len) = received else {
                    self.wants_packets = true;
                    break;
                };
                moved += len;
                // Less than an Ethernet header is no frame.
                let taken = len >= NET_HEADER + ETHERNET && self.finish_incoming(agreed, len);
                self.incoming_len = if taken { len } else { 0 };
            } else if !self.deliver(agreed, queue, ram)? {
                break;
            }
        }
        Ok(())
    }

    /// Makes the packet that came one that the driver has agreed to. Returns whether that can be done.
    fn finish_incoming(&mut self, agreed: u64, len: usize) -> bool {
        let packet = &mut self.incoming[..len];
        let mut header = Header::of(packet);
        let guest_checks = agreed & GUEST_CSUM != 0;
        let segments = match header.gso_type {
            gso::NONE => true,
            gso::TCPV4 => agreed & GUEST_TSO4 != 0,
            gso::TCPV6 => agreed & GUEST_TSO6 != 0,
            _ => false,
        };
        // What the peer had ready for the driver before this one.
        if !segments || (header.gso_type != gso::NONE && !guest_checks) {
            return false;
        }
        let frame = &mut packet[NET_HEADER..];
        if header.flags & NEEDS_CSUM != 0 {
            if !guest_checks {
                if !checksum::complete(frame, header.csum_start, header.csum_offset) {
                    return false;
                }
                header = Header::default();
            }
        } else if !guest_checks {
            header.flags = 0;
        } else if header.flags & DATA_VALID == 0 && checksum::is_right(frame) {
            header.flags |= DATA_VALID;
        }
        header.put(packet);
        true
    }

    /// Gives the packet to the guest, or drops it if no buffers of the guest will ever hold it. Returns false
    /// if it has to wait for more of them.
    fn deliver(
        &mut self,
        agreed: u64,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<bool, DeviceFault> {
        let most = if agreed & MRG_RXBUF != 0 { queue.size() } else { 1 };
        let len = self.incoming_len as u64;
        let mut room = 0;
        let mut count: u16 = 0;
        while room < len {
            let Some(buffer) = self.buffers.get(usize::from(count)) else {
                if count == most {
                    tracing::debug!(len, "a packet is larger than the guest's buffers");
                    self.incoming_len = 0;
                    return Ok(true);
                }
                let Some(chain) = queue.pop(ram)? else { return Ok(false) };
                self.buffers.push(chain);
                continue;
            };
            room += buffer.writable_len();
            count += 1;
        }
        let packet = &mut self.incoming[..self.incoming_len];
        Header { num_buffers: count, ..Header::of(packet) }.put(packet);
        let mut rest = &*packet;
        let mut filled = Vec::with_capacity(count.into());
        for chain in &self.buffers[..count.into()] {
            let written = chain.write(ram, 0, rest)?;
            rest = &rest[written..];
            filled.push((chain, written as u64));
        }
        queue.complete_together(ram, filled)?;
        self.buffers.drain(..usize::from(count));
        self.incoming_len = 0;
        Ok(true)
    }

    /// Sends the guest's packets as long as there are any, and room for them, in what it has `agreed` to.
    pub(super) fn transmit(
        &mut self,
        agreed: u64,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        self.blocked = !lock(&self.peer).flush();
        let mut moved = 0;
        while !self.blocked {
            if moved > TURN {
                queue.end_turn();
                break;
            }
            let Some(chain) = queue.pop(ram)? else { break };
            let len = chain.readable_len();
            let is_packet = ((NET_HEADER + ETHERNET) as u64..=MAX_PACKET as u64).contains(&len);
            // Else it is dropped, as a cable has no way to complain.
            if is_packet {
                let len = chain.read(ram, 0, &mut self.outgoing)?;
                moved += len;
                if self.finish_outgoing(agreed, len)
                    && !lock(&self.peer).send(&mut self.outgoing[..len])
                {
                    self.blocked = true;
                    queue.keep(chain);
                    break;
                }
            }
            queue.complete(ram, &chain, 0)?;
        }
        self.blocked |= !lock(&self.peer).flush();
        Ok(())
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Makes the guest's packet one that the peer can send. Returns whether that can be done.
    fn finish_outgoing(&mut self, agreed: u64, len: usize) -> bool {
        let packet = &mut self.outgoing[..len];
        let header = Header::of(packet);
        let needs_checksum = header.flags & NEEDS_CSUM != 0;
        let segments = match header.gso_type {
            gso::NONE => true,
            gso::TCPV4 => agreed & HOST_TSO4 != 0,
            gso::TCPV6 => agreed & HOST_TSO6 != 0,
            _ => false,
        };
        if !segments || (needs_checksum || header.gso_type != gso::NONE) && agreed & CSUM == 0 {
            return false;
        }
        if self.reads_headers {
            // The peer judges what it is asked for.
            Header { flags: header.flags & NEEDS_CSUM, num_buffers: 0, ..header }.put(packet);
            return true;
        }
        let frame = &mut packet[NET_HEADER..];
        !needs_checksum || checksum::complete(frame, header.csum_start, header.csum_offset)
    }

    /// The guest is to receive nothing more here: what came is dropped. Its buffers stay for when it is to again,
    /// as those do that are still in the ring.
    pub(super) fn disable(&mut self) {
        self.incoming_len = 0;
        self.wants_packets = false;
    }

    /// Back to the state before features were agreed.
    pub(super) fn reset(&mut self) {
        self.incoming_len = 0;
        self.buffers.clear();
        self.wants_packets = false;
        self.blocked = false;
    }
}

fn lock(peer: &Mutex<dyn NetPeer>) -> MutexGuard<'_, dyn NetPeer + 'static> {
    peer.lock().unwrap_or_else(PoisonError::into_inner)
}
