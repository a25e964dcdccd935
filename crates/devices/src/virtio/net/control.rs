//! The control queue (virtio 1.2, section 5.1.6.5). Of its commands there is one: how many pairs of queues the
//! driver uses.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use super::header::low_byte;
use crate::dma::GuestRam;
use crate::virtio::chain::Chain;
use crate::virtio::device::DeviceFault;

const MQ: u8 = low_byte(VIRTIO_NET_CTRL_MQ);
const VQ_PAIRS_SET: u8 = low_byte(VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET);
/// Bytes of VQ_PAIRS_SET: class, command, and the number of pairs in two bytes.
const LEN: usize = 4;

/// What a driver asks for on the control queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// To use this many pairs of queues from now on.
    SetPairs(u16),
    /// What the device does not know, or what is not as long as it has to be.
    Unknown,
}

impl Command {
    /// Reads the command in `chain`.
    ///
    /// # Errors
    /// It has no room for the answer, guest memory cannot be reached, or the device is to stop.
    pub(super) fn read(chain: &Chain, ram: &GuestRam) -> Result<Self, DeviceFault> {
        if chain.writable_len() == 0 {
            return Err(DeviceFault::ShortRequest { head: chain.head() });
        }
        let mut bytes = [0; LEN];
        let read = chain.read(ram, 0, &mut bytes)?;
        let whole = read == LEN && chain.readable_len() == LEN as u64;
        Ok(match bytes {
            [MQ, VQ_PAIRS_SET, low, high] if whole => {
                Self::SetPairs(u16::from_le_bytes([low, high]))
            }
            _ => Self::Unknown,
        })
    }
}

/// The byte that answers a command.
pub(super) const fn answer(obeyed: bool) -> u8 {
    low_byte(if obeyed { VIRTIO_NET_OK } else { VIRTIO_NET_ERR })
}
