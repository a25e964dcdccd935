//! The header of a packet (virtio 1.2, section 5.1.6).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// Bytes of a header, as version 1 of virtio has it whatever the features are.
pub const NET_HEADER: usize = 12;

/// A constant of a field of one byte.
pub(super) const fn low_byte(constant: u32) -> u8 {
    constant.to_le_bytes()[0]
}

/// The frame's checksum is left to whoever receives it.
pub(super) const NEEDS_CSUM: u8 = low_byte(VIRTIO_NET_HDR_F_NEEDS_CSUM);
/// The frame's checksum was found right.
pub(super) const DATA_VALID: u8 = low_byte(VIRTIO_NET_HDR_F_DATA_VALID);

/// What is to become of a frame that is larger than the network takes.
pub(super) mod gso {
    use super::*;

    pub(in super::super) const NONE: u8 = low_byte(VIRTIO_NET_HDR_GSO_NONE);
    pub(in super::super) const TCPV4: u8 = low_byte(VIRTIO_NET_HDR_GSO_TCPV4);
    pub(in super::super) const TCPV6: u8 = low_byte(VIRTIO_NET_HDR_GSO_TCPV6);
}

/// The header of a packet, in either direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Header {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    /// Bytes of the frame's own headers, as a hint.
    pub(super) hdr_len: u16,
    /// Bytes of each segment.
    pub(super) gso_size: u16,
    /// Where the checksum begins in the frame, and where its field is from there.
    pub(super) csum_start: u16,
    pub(super) csum_offset: u16,
    /// Buffers of the guest that the packet has: its own are for the device alone to count.
    pub(super) num_buffers: u16,
}

impl Header {
    /// Reads the header of `packet`, which has one.
    pub(super) fn of(packet: &[u8]) -> Self {
        let field = |at: usize| u16::from_le_bytes([packet[at], packet[at + 1]]);
        Self {
            flags: packet[0],
            gso_type: packet[1],
            hdr_len: field(2),
            gso_size: field(4),
            csum_start: field(6),
            csum_offset: field(8),
            num_buffers: field(10),
        }
    }

    /// Writes the header of `packet`, which has one.
    pub(super) fn put(self, packet: &mut [u8]) {
        packet[0] = self.flags;
        packet[1] = self.gso_type;
        for (at, field) in (2..).step_by(2).zip([
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ]) {
            packet[at..at + 2].copy_from_slice(&field.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_its_bytes_say() {
        let bytes: [u8; NET_HEADER] = std::array::from_fn(|index| index as u8);
        let mut written = [0; NET_HEADER];

        let header = Header::of(&bytes);
        header.put(&mut written);

        assert_eq!((header.flags, header.gso_type, header.gso_size), (0, 1, 0x0504));
        assert_eq!((header.csum_start, header.num_buffers), (0x0706, 0x0b0a));
        assert_eq!(written, bytes);
    }
}
