//! What a virtio device is to its transport.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use thiserror::Error;
use vm_memory::GuestMemoryError;

use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;

/// What the driver did that leaves the device unable to go on: it asks for a reset (virtio 1.2,
/// section 2.1.2, DEVICE_NEEDS_RESET).
#[derive(Debug, Error)]
pub enum DeviceFault {
    /// The areas of a queue are not where a device can use them.
    #[error("Queue {queue} has a size or addresses that it cannot run with")]
    QueueSetup {
        /// Index of the queue.
        queue: usize,
    },
    /// A ring says something that no driver may write in it.
    #[error("A ring of the queue is broken")]
    Ring(#[source] virtio_queue::Error),
    /// A chain ends in nothing, comes back to itself, or has more descriptors than the queue.
    #[error("The descriptor chain at {head} is broken")]
    BrokenChain {
        /// Its first descriptor.
        head: u16,
    },
    /// A chain has a buffer to read after one to write (virtio 1.2, section 2.7.4.2).
    #[error("The descriptor chain at {head} mixes buffers to read and to write")]
    MixedChain {
        /// Its first descriptor.
        head: u16,
    },
    /// A chain has a buffer that is not all guest RAM.
    #[error("The descriptor chain at {head} has a buffer outside RAM")]
    BufferOutsideRam {
        /// Its first descriptor.
        head: u16,
    },
    /// A chain has no room for what each request of this device has.
    #[error("The descriptor chain at {head} is too short for a request")]
    ShortRequest {
        /// Its first descriptor.
        head: u16,
    },
    /// The boot is to end, or the driver wants its buffers back: the device abandons its work, through no fault
    /// of the driver.
    #[error("The device is to stop")]
    Halted,
    /// What does the device's work is gone.
    #[error("The process that serves the device is gone")]
    NoServer,
    /// Guest memory went away under a buffer that was there.
    #[error("A buffer cannot be reached")]
    Memory(#[from] GuestMemoryError),
}

/// A virtio device without its transport (virtio 1.2, section 2).
///
/// What it is (its type, features and queues) never changes, and is asked once. The transport calls
/// [`VirtioDevice::activate`] when the features are agreed, and [`VirtioDevice::reset`] between two requests. The
/// I/O thread calls [`VirtioDevice::serve`] as often as the driver or the host has something
/// for a queue.
pub trait VirtioDevice: Send {
    /// The device type (virtio 1.2, section 5).
    fn device_id(&self) -> u32;

    /// The device's own feature bits, if it has any. The transport adds those that are its own.
    fn features(&self) -> u64 {
        0
    }

    /// The largest size of each queue: powers of two, at most 32768.
    fn queue_sizes(&self) -> &'static [u16];

    /// The device-specific configuration space, if there is one, in which drivers can write nothing. Its
    /// length never changes; what is in it may, when a queue is served, and the driver is told.
    fn config(&self) -> &[u8] {
        &[]
    }

    /// The features are agreed: a subset of what was offered.
    fn activate(&mut self, _features: u64) {}

    /// Handles what is in queue `index`, chain by chain until there is none left for this turn. Never
    /// waits for the guest; what the host does not take now is put back.
    ///
    /// # Errors
    /// The driver broke the rules and the device needs a reset, or the device is to stop.
    fn serve(
        &mut self,
        index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault>;

    /// A queue that is to be served next because of what was just served, if one is. Asked until there is no
    /// further one.
    fn follow_up(&mut self) -> Option<usize> {
        None
    }

    /// For each queue that the host may have something for: the queue, and what is readable as long as the host
    /// does. Asked once.
    fn host_events(&self) -> Vec<(usize, Arc<OwnedFd>)> {
        Vec::new()
    }

    /// Back to the state before [`VirtioDevice::activate`].
    fn reset(&mut self);
}

impl fmt::Debug for dyn VirtioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtioDevice")
    }
}
