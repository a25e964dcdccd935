//! virtio-net: an Ethernet device (virtio 1.2, section 5.1).
//!
//! What is at the other end of its cable is a [`NetPeer`], or one for each pair of queues. The driver may leave
//! checksums to the device, and need not look at those that the device has found right: both are done on the
//! host's processor, which is faster than the guest's. Segments are left only to a peer that can divide them.

mod checksum;
mod control;
mod header;
mod pair;
mod peer;
mod stream;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
    VIRTIO_NET_S_LINK_UP,
};

pub use self::header::NET_HEADER;
pub use self::peer::{GuestOffloads, NetPeer};
pub use self::stream::StreamPeer;

use self::control::Command;
use self::pair::Pair;
use super::device::{DeviceFault, VirtioDevice};
use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;

/// Pairs of queues at most.
pub const MAX_QUEUE_PAIRS: usize = 8;
/// Descriptors of each queue at most: of two for each pair, and the control queue.
const QUEUE_SIZES: [u16; 2 * MAX_QUEUE_PAIRS + 1] = [256; _];

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
const CTRL_VQ: u64 = 1 << VIRTIO_NET_F_CTRL_VQ;
const MQ: u64 = 1 << VIRTIO_NET_F_MQ;
const ALWAYS: u64 = CSUM | GUEST_CSUM | MAC | MRG_RXBUF | STATUS;
const SEGMENTS: u64 = GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6;
const MULTIQUEUE: u64 = CTRL_VQ | MQ;

const LINK_UP: u8 = VIRTIO_NET_S_LINK_UP.to_le_bytes()[0];
/// Where the configuration has the status, the number of pairs and the MTU (virtio 1.2, section 5.1.4).
const CONFIG_STATUS: usize = 6;
const CONFIG_PAIRS: usize = 8;
const CONFIG_MTU: usize = 10;
const CONFIG_LEN: usize = 12;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What a queue is for (virtio 1.2, section 5.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Packets of this pair for the guest.
    Receive(usize),
    /// The guest's packets of this pair.
    Transmit(usize),
    Control,
}

/// The network device.
#[derive(Debug)]
pub struct Net {
    pairs: Vec<Pair>,
    /// Pairs that the driver uses: packets for the guest come on no others.
    enabled: usize,
    config: [u8; CONFIG_LEN],
    offered: u64,
    agreed: u64,
    /// The peers do not know yet what is agreed.
    peers_are_to_know: bool,
    follow_up: Vec<usize>,
}

impl Net {
    /// A device of this address that is connected to `peers`, ends of one network with a pair of queues each.
    /// The network takes packets of `mtu` bytes, if that is known.
    ///
    /// # Errors
    /// The host has no further descriptor.
    ///
    /// # Panics
    /// There is no peer, or there are more than [`MAX_QUEUE_PAIRS`].
    pub fn new(
        mac: Mac,
        mtu: Option<u16>,
        peers: impl IntoIterator<Item = Arc<Mutex<dyn NetPeer>>>,
    ) -> io::Result<Self> {
        let pairs = peers.into_iter().map(Pair::new).collect::<io::Result<Vec<_>>>()?;
        assert!((1..=MAX_QUEUE_PAIRS).contains(&pairs.len()), "a device has 1 to 8 peers");
        let several = pairs.len() > 1;
        let mut offered = ALWAYS;
        offered |= if pairs.iter().all(Pair::reads_headers) { SEGMENTS } else { 0 };
        offered |= if mtu.is_some() { MTU } else { 0 };
        offered |= if several { MULTIQUEUE } else { 0 };
        // The field is there only if MQ is offered.
        let count = if several { u16::try_from(pairs.len()).unwrap_or(u16::MAX) } else { 0 };
        let mut config = [0; CONFIG_LEN];
        config[..CONFIG_STATUS].copy_from_slice(&mac);
        config[CONFIG_PAIRS..CONFIG_MTU].copy_from_slice(&count.to_le_bytes());
        config[CONFIG_MTU..].copy_from_slice(&mtu.unwrap_or_default().to_le_bytes());
        let mut device = Self {
            pairs,
            enabled: 1,
            config,
            offered,
            agreed: 0,
            peers_are_to_know: false,
            follow_up: Vec::new(),
        };
        device.show_status();
        Ok(device)
    }

    fn has(&self, features: u64) -> bool {
        self.agreed & features == features
    }

    /// What queue `index` is for, as far as the driver has agreed to use it. The control queue follows those of
    /// all pairs that the driver may use, and so the first pair where it uses one.
    fn role(&self, index: usize) -> Option<Role> {
        let pairs = if self.has(MULTIQUEUE) { self.pairs.len() } else { 1 };
        match (index / 2, index % 2) {
            (pair, 0) if pair < pairs => Some(Role::Receive(pair)),
            (pair, _) if pair < pairs => Some(Role::Transmit(pair)),
            (pair, 0) if pair == pairs && self.has(CTRL_VQ) => Some(Role::Control),
            _ => None,
        }
    }

    /// Has the configuration say whether the link is up. Returns whether that is news.
    fn show_status(&mut self) -> bool {
        let up = self.pairs.iter().all(|pair| pair.peer().is_up());
        let status = if up { LINK_UP } else { 0 };
        std::mem::replace(&mut self.config[CONFIG_STATUS], status) != status
    }

    fn tell_peers(&mut self) {
        if !std::mem::take(&mut self.peers_are_to_know) {
            return;
        }
        let checksum = self.has(GUEST_CSUM);
        // Segments have their checksums left to the driver.
        let (tso4, tso6) = (self.has(GUEST_TSO4), self.has(GUEST_TSO6));
        let guest = GuestOffloads { checksum, tso4: checksum && tso4, tso6: checksum && tso6 };
        // One of them speaks for the network.
        self.pairs[0].peer().offload(guest);
        // The driver before this one may have used more.
        self.pairs.iter().for_each(Pair::unwatch);
        self.enable_peers(self.enabled);
    }

    /// Has the network give packets to the first `count` peers. Returns whether all of them have them.
    fn enable_peers(&self, count: usize) -> bool {
        // Each of them, also after one that does not follow.
        let follows = |(at, pair): (usize, &Pair)| pair.peer().enable(at < count);
        self.pairs.iter().enumerate().filter(|&pair| !follows(pair)).count() == 0
    }

    fn receive(
        &mut self,
        index: usize,
        at: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        let pair = &mut self.pairs[at];
        if pair.take_events() {
            self.follow_up.push(index + 1);
        }
        if at < self.enabled {
            pair.receive(self.agreed, queue, ram)?;
        }
        pair.watch();
        self.show_status();
        Ok(())
    }

    fn transmit(
        &mut self,
        at: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        // Of any pair: a driver that has just given some up may have packets there.
        self.pairs[at].transmit(self.agreed, queue, ram)?;
        if self.show_status() || self.pairs[at].is_blocked() {
            self.pairs[at].watch();
        }
        Ok(())
    }

    /// Obeys the driver's next command.
    fn control(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
        let Some(chain) = queue.pop(ram)? else { return Ok(()) };
        let obeyed = match Command::read(&chain, ram)? {
            Command::SetPairs(count) if self.has(MQ) => self.set_pairs(count.into()),
            _ => false,
        };
        chain.write(ram, 0, &[control::answer(obeyed)])?;
        queue.complete(ram, &chain, 1)?;
        // The host may take a while for each.
        queue.end_turn();
        Ok(())
    }

    /// Has the driver use the first `count` pairs. Returns whether it can.
    fn set_pairs(&mut self, count: usize) -> bool {
        if !(1..=self.pairs.len()).contains(&count) {
            return false;
        }
        if !self.enable_peers(count) {
            self.enable_peers(self.enabled);
            return false;
        }
        self.pairs[count..].iter_mut().for_each(Pair::disable);
        // What the driver put in before counts from now on.
        self.follow_up.extend((self.enabled..count).map(|pair| 2 * pair));
        self.enabled = count;
        true
    }
}

impl VirtioDevice for Net {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.offered
    }

    /// There is none for control beside one pair: a driver without it has what it sets by it as it is here, all
    /// frames and this address.
    fn queue_sizes(&self) -> &'static [u16] {
        match self.pairs.len() {
            1 => &QUEUE_SIZES[..2],
            pairs => &QUEUE_SIZES[..=2 * pairs],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, features: u64) {
        self.agreed = features;
        self.peers_are_to_know = true;
    }

    fn serve(
        &mut self,
        index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        self.tell_peers();
        match self.role(index) {
            Some(Role::Receive(pair)) => self.receive(index, pair, queue, ram),
            Some(Role::Transmit(pair)) => self.transmit(pair, queue, ram),
            Some(Role::Control) => self.control(queue, ram),
            None => Ok(()),
        }
    }

    fn follow_up(&mut self) -> Option<usize> {
        self.follow_up.pop()
    }

    fn host_events(&self) -> Vec<(usize, Arc<OwnedFd>)> {
        self.pairs.iter().enumerate().map(|(at, pair)| (2 * at, pair.events())).collect()
    }

    fn reset(&mut self) {
        self.agreed = 0;
        self.enabled = 1;
        self.pairs.iter_mut().for_each(Pair::reset);
        self.follow_up.clear();
    }
}

#[cfg(test)]
mod tests;
