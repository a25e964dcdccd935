//! A split virtqueue from the device's side: virtio-queue's rings, with every surprise an error.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

use super::chain::{Chain, leave_off_if_halted};
use super::device::DeviceFault;
use crate::devices::dma::GuestRam;

/// What the driver writes in the queue registers before it says that the queue is ready.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueSetup {
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) driver_area: u64,
    pub(super) device_area: u64,
}

/// One queue of a device.
pub struct Virtqueue {
    ring: Queue,
    pub(super) setup: QueueSetup,
    /// Chains that may still be taken in this turn.
    turn: u32,
    /// The turn ended before the ring was empty.
    cut_short: bool,
    /// A chain was used since the driver was last told.
    used: bool,
}

/// Turns of a queue's whole size before the device lets go. Another vCPU may refill the ring as
/// fast as it is emptied.
const REFILLS_PER_TURN: u32 = 16;

impl Virtqueue {
    /// A queue of at most `max_size` descriptors.
    ///
    /// # Panics
    /// `max_size` is no power of two, or more than 32768: the device's own mistake.
    pub(super) fn new(max_size: u16) -> Self {
        let ring = Queue::new(max_size).expect("a queue's size is a power of two up to 32768");
        let setup = QueueSetup { size: max_size.into(), ..QueueSetup::default() };
        Self { ring, setup, turn: 0, cut_short: false, used: false }
    }

    pub(super) fn max_size(&self) -> u16 {
        self.ring.max_size()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ring.ready()
    }

    /// Starts the queue with what the driver set up. Returns whether it can run so; if not, it
    /// stays stopped.
    pub(super) fn start(&mut self, ram: &GuestRam, event_idx: bool) -> bool {
        let QueueSetup { size, descriptors, driver_area, device_area } = self.setup;
        self.stop();
        let accepted = u16::try_from(size).is_ok_and(|size| self.ring.try_set_size(size).is_ok())
            && self.ring.try_set_desc_table_address(GuestAddress(descriptors)).is_ok()
            && self.ring.try_set_avail_ring_address(GuestAddress(driver_area)).is_ok()
            && self.ring.try_set_used_ring_address(GuestAddress(device_area)).is_ok();
        self.ring.set_event_idx(event_idx);
        self.ring.set_ready(accepted);
        if accepted && !self.ring.is_valid(ram.memory()) {
            self.stop();
        }
        self.is_ready()
    }

    /// Stops the queue and forgets its position.
    pub(super) fn stop(&mut self) {
        self.ring.reset();
        self.turn = 0;
        self.cut_short = false;
        self.used = false;
    }

    /// Stops the queue and forgets its setup.
    pub(super) fn reset(&mut self) {
        self.stop();
        self.setup = QueueSetup { size: self.max_size().into(), ..QueueSetup::default() };
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn = u32::from(self.ring.size()) * REFILLS_PER_TURN;
        self.cut_short = false;
    }

    pub(super) fn was_cut_short(&self) -> bool {
        self.cut_short
    }

    /// Whether the driver wants to hear of what was used since the last call.
    pub(super) fn wants_interrupt(&mut self, ram: &GuestRam) -> Result<bool, DeviceFault> {
        if !std::mem::take(&mut self.used) {
            return Ok(false);
        }
        self.ring.needs_notification(ram.memory()).map_err(DeviceFault::Ring)
    }

    /// Takes the next chain. When there is none, the driver is to notify the device of the next
    /// one that it adds.
    ///
    /// # Errors
    /// The ring or the chain breaks the rules, or the boot is to end.
    pub fn pop(&mut self, ram: &GuestRam) -> Result<Option<Chain>, DeviceFault> {
        leave_off_if_halted(ram)?;
        let memory = ram.memory();
        loop {
            let Some(turn) = self.turn.checked_sub(1) else {
                self.cut_short = true;
                return Ok(None);
            };
            self.turn = turn;
            let limit = self.ring.size();
            if let Some(chain) = self.ring.iter(memory).map_err(DeviceFault::Ring)?.next() {
                return Chain::collect(chain, limit, ram).map(Some);
            }
            // The driver may have added one just before it could see that it should notify.
            let more = self.ring.enable_notification(memory).map_err(DeviceFault::Ring)?;
            if !more {
                return Ok(None);
            }
        }
    }

    /// Gives a chain back with the first `len` of its writable bytes written.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn complete(&mut self, ram: &GuestRam, chain: &Chain, len: u64) -> Result<(), DeviceFault> {
        /// Flags and index, then 8 bytes for each element (virtio 1.2, section 2.7.8).
        const HEADER: u64 = 4;
        const ELEMENT: u64 = 8;
        let slot = u64::from(self.ring.next_used() % self.ring.size());
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.ring.add_used(ram.memory(), chain.head(), len).map_err(DeviceFault::Ring)?;
        let used = self.ring.used_ring();
        ram.report(used, HEADER);
        ram.report(used + HEADER + slot * ELEMENT, ELEMENT);
        self.used = true;
        Ok(())
    }
}
