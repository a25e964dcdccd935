//! What is at the other end of a network device's cable.

use std::fmt;
use std::os::fd::BorrowedFd;

/// What a driver takes frames in that are not finished.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GuestOffloads {
    /// Their checksums may be left to the driver (GUEST_CSUM).
    pub checksum: bool,
    /// They may be several segments of TCP over IPv4 (GUEST_TSO4).
    pub tso4: bool,
    /// They may be several segments of TCP over IPv6 (GUEST_TSO6).
    pub tso6: bool,
}

/// The other end of a network device's cable. It outlives the device, which each boot makes anew, and waits
/// for nothing.
///
/// A packet is a frame after a header of [`NET_HEADER`](super::NET_HEADER) bytes, in one buffer.
pub trait NetPeer: Send {
    /// Whether it does what the headers of packets ask for, checksums and segments, and gives packets whose
    /// headers ask for it. Frames to and from one that does not are finished, and their headers say nothing.
    fn reads_headers(&self) -> bool {
        false
    }

    /// The guest takes unfinished frames of these kinds from now on, and no others.
    fn offload(&mut self, _guest: GuestOffloads) {}

    /// The network may give packets to this peer, one of the ends that a device of several pairs of queues has
    /// on it, or is to give all of them to others. Returns whether that is so now.
    fn enable(&mut self, _on: bool) -> bool {
        true
    }

    /// Whether frames get anywhere now.
    fn is_up(&self) -> bool;

    /// Takes a packet to send it, or drops it, and returns true; or has no room for it now. The header is
    /// the peer's to write over.
    fn send(&mut self, packet: &mut [u8]) -> bool;

    /// Sends what was taken and not yet sent. Returns whether nothing of it is left.
    fn flush(&mut self) -> bool {
        true
    }

    /// Puts the next packet, if there is one, into a buffer that has room for the largest. Returns its length.
    fn receive(&mut self, packet: &mut [u8]) -> Option<usize>;

    /// What becomes readable when there may be a packet, and writable when there is room for one, if the peer
    /// waits for anything.
    fn watched(&self) -> Option<BorrowedFd<'_>>;
}

impl fmt::Debug for dyn NetPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetPeer")
    }
}
