//! virtio-net: an Ethernet device (virtio 1.2, section 5.1).
//!
//! What is at the other end of its cable is a [`NetPeer`]. The driver may leave checksums to the device, and
//! need not look at those that the device has found right: both are done on the host's processor, which is
//! faster than the guest's. Segments are left only to a peer that can divide them.

mod checksum;
mod header;
mod peer;
mod stream;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

pub use self::header::NET_HEADER;
pub use self::peer::{GuestOffloads, NetPeer};
pub use self::stream::StreamPeer;

use self::checksum::ETHERNET;
use self::header::{DATA_VALID, Header, NEEDS_CSUM, gso};
use super::chain::Chain;
use super::device::{DeviceFault, VirtioDevice};
use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Bytes of a frame at most: those of the largest IP packet with its Ethernet header, and room for more
/// headers. QEMU has the same limit, so that neither end of a stream is surprised.
const MAX_FRAME: usize = (64 << 10) + (4 << 10);
const MAX_PACKET: usize = NET_HEADER + MAX_FRAME;
/// Bytes of packets that a queue's turn moves, about; then other devices have theirs.
const TURN: usize = 1 << 20;

const CSUM: u64 = 1 << VIRTIO_NET_F_CSUM;
const GUEST_CSUM: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;
const MTU: u64 = 1 << VIRTIO_NET_F_MTU;
const MAC: u64 = 1 << VIRTIO_NET_F_MAC;
const GUEST_TSO4: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4;
const GUEST_TSO6: u64 = 1 << VIRTIO_NET_F_GUEST_TSO6;
const HOST_TSO4: u64 = 1 << VIRTIO_NET_F_HOST_TSO4;
const HOST_TSO6: u64 = 1 << VIRTIO_NET_F_HOST_TSO6;
const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const STATUS: u64 = 1 << VIRTIO_NET_F_STATUS;
const ALWAYS: u64 = CSUM | GUEST_CSUM | MAC | MRG_RXBUF | STATUS;
const SEGMENTS: u64 = GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6;

const LINK_UP: u8 = VIRTIO_NET_S_LINK_UP.to_le_bytes()[0];
/// Where the configuration has the status (virtio 1.2, section 5.1.4).
const CONFIG_STATUS: usize = 6;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The network device.
#[derive(Debug)]
pub struct Net {
    peer: Arc<Mutex<dyn NetPeer>>,
    /// Readable when the peer is ready for what it is watched for.
    events: Arc<OwnedFd>,
    /// The address, the status, the number of pairs of queues (unused) and the MTU.
    config: [u8; 12],
    offered: u64,
    agreed: u64,
    /// The peer does not know yet what is agreed.
    peer_is_to_know: bool,
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
    follow_up: Option<usize>,
}

impl Net {
    /// A device of this address that is connected to `peer`, whose network takes packets of `mtu` bytes, if
    /// that is known.
    ///
    /// # Errors
    /// The host has no further descriptor.
    pub fn new(mac: Mac, mtu: Option<u16>, peer: Arc<Mutex<dyn NetPeer>>) -> io::Result<Self> {
        let reads_headers = lock(&peer).reads_headers();
        let mut config = [0; 12];
        config[..CONFIG_STATUS].copy_from_slice(&mac);
        config[10..].copy_from_slice(&mtu.unwrap_or_default().to_le_bytes());
        let mut device = Self {
            events: Arc::new(epoll::create(CreateFlags::CLOEXEC)?),
            config,
            offered: ALWAYS
                | if reads_headers { SEGMENTS } else { 0 }
                | if mtu.is_some() { MTU } else { 0 },
            agreed: 0,
            peer_is_to_know: false,
            incoming: vec![0; MAX_PACKET].into(),
            incoming_len: 0,
            buffers: Vec::new(),
            run: 0,
            outgoing: vec![0; MAX_PACKET].into(),
            wants_packets: false,
            blocked: false,
            follow_up: None,
            peer,
        };
        device.show_status();
        Ok(device)
    }

    fn has(&self, feature: u64) -> bool {
        self.agreed & feature != 0
    }

    /// Has the configuration say whether the link is up. Returns whether that is news.
    fn show_status(&mut self) -> bool {
        let status = if lock(&self.peer).is_up() { LINK_UP } else { 0 };
        std::mem::replace(&mut self.config[CONFIG_STATUS], status) != status
    }

    fn tell_peer(&mut self) {
        if std::mem::take(&mut self.peer_is_to_know) {
            let checksum = self.has(GUEST_CSUM);
            // Segments have their checksums left to the driver.
            let (tso4, tso6) = (self.has(GUEST_TSO4), self.has(GUEST_TSO6));
            let guest = GuestOffloads { checksum, tso4: checksum && tso4, tso6: checksum && tso6 };
            lock(&self.peer).offload(guest);
        }
    }

    /// Watches the peer for what the queues wait for, once.
    fn watch(&self) {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.wants_packets);
        flags.set(EventFlags::OUT, self.blocked);
        let peer = lock(&self.peer);
        let Some(watched) = peer.watched().filter(|_| !flags.is_empty()) else { return };
        let (data, flags) = (EventData::new_u64(0), flags | EventFlags::ONESHOT);
        // It may be another one than the last time.
        if epoll::modify(&self.events, watched, data, flags) == Err(Errno::NOENT)
            && let Err(error) = epoll::add(&self.events, watched, data, flags)
        {
            tracing::warn!(%error, "the host does not watch the network's peer");
        }
    }

    /// Takes the news that the peer is ready, and returns whether it may have room.
    fn take_events(&self) -> bool {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = Vec::with_capacity(1);
        // An error is an interruption: the news is there still.
        let _ = epoll::wait(&self.events, spare_capacity(&mut events), Some(&NOW));
        events.iter().any(|event| { event.flags } != EventFlags::IN)
    }

    /// Gives packets to the guest as long as there are any, and room for them.
    fn receive(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
        if self.take_events() {
            self.blocked = false;
            self.follow_up = Some(TRANSMIT);
        }
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
                let taken = len >= NET_HEADER + ETHERNET && self.finish_incoming(len);
                self.incoming_len = if taken { len } else { 0 };
            } else if !self.deliver(queue, ram)? {
                break;
            }
        }
        self.show_status();
        self.watch();
        Ok(())
    }

    /// Makes the packet that came one that the driver has agreed to. Returns whether that can be done.
    fn finish_incoming(&mut self, len: usize) -> bool {
        let packet = &mut self.incoming[..len];
        let mut header = Header::of(packet);
        let guest_checks = self.agreed & GUEST_CSUM != 0;
        let segments = match header.gso_type {
            gso::NONE => true,
            gso::TCPV4 => self.agreed & GUEST_TSO4 != 0,
            gso::TCPV6 => self.agreed & GUEST_TSO6 != 0,
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
    fn deliver(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<bool, DeviceFault> {
        let most = if self.has(MRG_RXBUF) { queue.size() } else { 1 };
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

    /// Sends the guest's packets as long as there are any, and room for them.
    fn transmit(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
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
                if self.finish_outgoing(len) && !lock(&self.peer).send(&mut self.outgoing[..len]) {
                    self.blocked = true;
                    queue.keep(chain);
                    break;
                }
            }
            queue.complete(ram, &chain, 0)?;
        }
        self.blocked |= !lock(&self.peer).flush();
        if self.show_status() || self.blocked {
            self.watch();
        }
        Ok(())
    }

    /// Makes the guest's packet one that the peer can send. Returns whether that can be done.
    fn finish_outgoing(&mut self, len: usize) -> bool {
        let packet = &mut self.outgoing[..len];
        let header = Header::of(packet);
        let needs_checksum = header.flags & NEEDS_CSUM != 0;
        let agreed = match header.gso_type {
            gso::NONE => true,
            gso::TCPV4 => self.agreed & HOST_TSO4 != 0,
            gso::TCPV6 => self.agreed & HOST_TSO6 != 0,
            _ => false,
        };
        if !agreed || (needs_checksum || header.gso_type != gso::NONE) && self.agreed & CSUM == 0 {
            return false;
        }
        if self.offered & SEGMENTS != 0 {
            // The peer judges what it is asked for.
            Header { flags: header.flags & NEEDS_CSUM, num_buffers: 0, ..header }.put(packet);
            return true;
        }
        let frame = &mut packet[NET_HEADER..];
        !needs_checksum || checksum::complete(frame, header.csum_start, header.csum_offset)
    }
}

impl VirtioDevice for Net {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.offered
    }

    /// There is none for control: a driver without one has what it sets by it as it is here, all frames and
    /// this address.
    fn queue_sizes(&self) -> &'static [u16] {
        &[256, 256]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, features: u64) {
        self.agreed = features;
        self.peer_is_to_know = true;
    }

    fn serve(
        &mut self,
        index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        self.tell_peer();
        match index {
            RECEIVE => self.receive(queue, ram),
            TRANSMIT => self.transmit(queue, ram),
            _ => Ok(()),
        }
    }

    fn follow_up(&mut self) -> Option<usize> {
        self.follow_up.take()
    }

    fn host_events(&self) -> Option<(usize, Arc<OwnedFd>)> {
        Some((RECEIVE, self.events.clone()))
    }

    fn reset(&mut self) {
        self.agreed = 0;
        self.incoming_len = 0;
        self.buffers.clear();
        self.wants_packets = false;
        self.blocked = false;
        self.follow_up = None;
    }
}

fn lock(peer: &Mutex<dyn NetPeer>) -> MutexGuard<'_, dyn NetPeer + 'static> {
    peer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
