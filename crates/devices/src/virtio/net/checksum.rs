//! The Internet checksum (RFC 1071) of frames: computed and verified here, on the host's processor, so that a
//! guest's, which is software, need not.

/// An Ethernet header, and where its type is.
pub(super) const ETHERNET: usize = 14;
const TYPE: usize = 12;
const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Does what a header with VIRTIO_NET_HDR_F_NEEDS_CSUM asks for (virtio 1.2, section 5.1.6.2): the sum of all
/// from `start` on, in which the field at `offset` from there has that of the pseudo header, goes to that
/// field. Returns whether the frame has such a field.
pub(super) fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    if field + 2 > frame.len() {
        return false;
    }
    // Zero in UDP's field would say that there is none; both are zero to the sum.
    let checksum = match !fold(sum(&frame[start..])) {
        0 => 0xffff,
        other => other,
    };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Whether the frame is one of TCP or UDP whose checksum is right.
pub(super) fn is_right(frame: &[u8]) -> bool {
    judge(frame).unwrap_or(false)
}

/// `None`: it is not such a frame, a fragment, or cut short.
fn judge(frame: &[u8]) -> Option<bool> {
    let mut header = TYPE;
    let mut kind = be16(frame, header)?;
    if kind == VLAN {
        header += 4;
        kind = be16(frame, header)?;
    }
    let packet = frame.get(header + 2..)?;
    let (addresses, protocol, segment) = match kind {
        IPV4 => ipv4(packet)?,
        IPV6 => ipv6(packet)?,
        _ => return None,
    };
    // A UDP checksum of zero is none.
    if protocol == UDP && be16(segment, 6)? == 0 {
        return None;
    }
    let len = u64::try_from(segment.len()).ok()?;
    Some(fold(sum(addresses) + u64::from(protocol) + len + sum(segment)) == 0xffff)
}

/// Addresses, protocol and segment of an IPv4 packet that is whole (RFC 791).
fn ipv4(packet: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(be16(packet, 2)?);
    let whole = header >= 20 && be16(packet, 6)? & MORE_FRAGMENTS_OR_OFFSET == 0;
    let protocol = *packet.get(9).filter(|&&protocol| whole && matches!(protocol, TCP | UDP))?;
    Some((packet.get(12..20)?, protocol, packet.get(header..total)?))
}

/// The same of an IPv6 packet without extension headers (RFC 8200).
fn ipv6(packet: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let len = usize::from(be16(packet, 4)?);
    let protocol = *packet.get(6).filter(|protocol| matches!(**protocol, TCP | UDP))?;
    Some((packet.get(8..40)?, protocol, packet.get(40..40 + len)?))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The sum of 16-bit words of which an odd one at the end is filled up with zero. It is taken over words of
/// 32 bits, which is the same modulo 2^16 - 1 (RFC 1071, section 2).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let words: u64 = words.iter().map(|&word| u64::from(u32::from_be_bytes(word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words + u64::from(u32::from_be_bytes(last))
}

/// A sum with its carries added to it, in 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Not above 16 bits any more.
    (sum & 0xffff) as u16
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Frames of TCP and UDP over IPv4 and IPv6, the last with a VLAN tag, whose checksums are not yet
    /// computed, and where that begins and its field is.
    pub(in super::super) fn frames(payload: &[u8]) -> Vec<(Vec<u8>, u16, u16)> {
        let of = |version: u16, protocol: u8, tag: bool| {
            let (header, field) = if protocol == TCP { (20, 16) } else { (8, 6) };
            let mut segment = vec![0x11; header];
            segment[field..field + 2].fill(0);
            if protocol == UDP {
                segment[4..6].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
            }
            segment.extend(payload);
            let len = segment.len() as u16;
            let mut frame = vec![0x52; 12];
            if tag {
                frame.extend([0x81, 0, 0, 7]);
            }
            frame.extend(version.to_be_bytes());
            let addresses = frame.len() + if version == IPV4 { 12 } else { 8 };
            if version == IPV4 {
                frame.extend([0x45, 0]);
                frame.extend((20 + len).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
            } else {
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend((0..32).map(|at| at * 7));
            }
            let start = frame.len();
            // The sum of the pseudo header, as a driver puts it in.
            let pseudo = sum(&frame[addresses..]) + u64::from(protocol) + u64::from(len);
            frame.extend(segment);
            let at = start + field;
            frame[at..at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
            (frame, start as u16, field as u16)
        };
        vec![of(IPV4, TCP, false), of(IPV4, UDP, false), of(IPV6, TCP, false), of(IPV6, UDP, true)]
    }

    #[test]
    fn what_is_completed_is_right_and_any_changed_bit_makes_it_wrong() {
        for len in [0, 1, 2, 3, 4, 5, 1001] {
            for (mut frame, start, offset) in frames(&vec![0xa7; len]) {
                assert!(!is_right(&frame));

                assert!(complete(&mut frame, start, offset));

                assert!(is_right(&frame), "{frame:02x?}");
                for at in usize::from(start)..frame.len() {
                    frame[at] ^= 0x10;
                    // The length of UDP stands in the pseudo header too, here by the packet's.
                    assert!(!is_right(&frame), "byte {at}");
                    frame[at] ^= 0x10;
                }
            }
        }
    }

    /// RFC 1071, section 3.
    #[test]
    fn the_sum_is_that_of_the_rfcs_example() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn fields_outside_the_frame_are_refused() {
        let mut frame = [0; 60];
        for (start, offset) in [(59, 0), (0, 59), (60, 0), (0xffff, 0xffff), (58, 2)] {
            assert!(!complete(&mut frame, start, offset), "{start} {offset}");
        }
        assert!(complete(&mut frame, 58, 0) && complete(&mut frame, 0, 58));
    }

    #[test]
    fn what_is_cut_short_fragmented_or_of_another_kind_is_not_right() {
        for (mut frame, start, offset) in frames(b"payload") {
            complete(&mut frame, start, offset);
            for end in 0..frame.len() {
                assert!(!is_right(&frame[..end]), "{end}");
            }
            let kind = if frame[12] == 0x81 { 16 } else { 12 };
            let mut other = frame.clone();
            other[kind + 1] ^= 1;
            assert!(!is_right(&other));
            if frame[kind] == 0x08 {
                for field in [[0x20, 0], [0, 1]] {
                    let mut fragment = frame.clone();
                    fragment[kind + 8..kind + 10].copy_from_slice(&field);
                    assert!(!is_right(&fragment));
                }
            }
        }
    }

    #[test]
    fn a_udp_datagram_without_a_checksum_is_not_called_right() {
        let (mut frame, start, offset) = frames(b"x").remove(1);
        let field = usize::from(start + offset);
        frame[field..field + 2].fill(0);

        assert!(!is_right(&frame));
    }
}
