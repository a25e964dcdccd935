//! A split virtqueue from the device's side: virtio-queue's rings, with every surprise an error.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_VRING;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes as _, GuestAddress};

use super::chain::{Chain, stop_if_halted};
use super::device::DeviceFault;
use super::signals::Signals;
use crate::dma::GuestRam;
use crate::halt::Halt;

/// What the driver writes in the queue registers before it says that the queue is ready.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueSetup {
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) driver_area: u64,
    pub(super) device_area: u64,
}

/// One queue of a device.
#[derive(Debug)]
pub struct Virtqueue {
    ring: Queue,
    signals: Arc<Signals>,
    /// The request to take no further chain for now.
    pause: Halt,
    /// A chain that the device could not finish, for the next turn.
    put_back: Option<Chain>,
    /// Chains that may still be taken in this turn.
    turn: u32,
    /// How often it was stopped.
    run: u64,
    /// The turn ended before the ring was empty.
    cut_short: bool,
}

/// How many times a turn may empty the whole ring before other devices have theirs. A vCPU
/// may refill the ring as fast as it is emptied.
const REFILLS_PER_TURN: u32 = 16;

impl Virtqueue {
    /// A queue of at most `max_size` descriptors, which interrupts by `signals`. No chain is taken from it
    /// while `pause` is requested.
    ///
    /// # Panics
    /// `max_size` is not a power of two up to 32768: the device's own mistake.
    pub(super) fn new(max_size: u16, signals: Arc<Signals>, pause: Halt) -> Self {
        let ring = Queue::new(max_size).expect("a queue's size is a power of two up to 32768");
        Self { ring, signals, pause, put_back: None, turn: 0, run: 0, cut_short: false }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ring.ready()
    }

    /// Starts the queue with what the driver set up. Returns whether it can run so; if not, it
    /// stays stopped.
    pub(super) fn start(&mut self, setup: &QueueSetup, ram: &GuestRam, event_idx: bool) -> bool {
        let &QueueSetup { size, descriptors, driver_area, device_area } = setup;
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
        self.put_back = None;
        self.turn = 0;
        self.run += 1;
        self.cut_short = false;
    }

    /// The time between two stops that it is in: a chain of another one is not the device's any more.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn = u32::from(self.ring.size()) * REFILLS_PER_TURN;
        self.cut_short = false;
    }

    pub(super) fn was_cut_short(&self) -> bool {
        self.cut_short
    }

    /// Takes the next chain. When there is none, the turn is over, or the driver is to notify the
    /// device of the next one that it adds.
    ///
    /// # Errors
    /// The ring or the chain breaks the rules, or the device is to stop.
    pub fn pop(&mut self, ram: &GuestRam) -> Result<Option<Chain>, DeviceFault> {
        stop_if_halted(ram)?;
        if self.is_paused() {
            self.cut_short = true;
            return Ok(None);
        }
        if let Some(chain) = self.put_back.take() {
            return Ok(Some(chain));
        }
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

    /// Whether the machine is to stop: a device that can divide a request puts it back.
    pub fn is_paused(&self) -> bool {
        self.pause.requested()
    }

    /// Ends the turn with a chain that the device cannot finish now, because the host does not take it.
    /// The next turn begins with it: [`Chain::done`] is how far it is.
    pub fn put_back(&mut self, chain: Chain, done: u64) {
        self.put_back = Some(chain.done_until(done));
        self.cut_short = true;
    }

    /// Gives a chain back that there is no use for yet: [`Virtqueue::pop`] has it first.
    pub fn keep(&mut self, chain: Chain) {
        self.put_back = Some(chain);
    }

    /// Ends the turn where the device has done enough for one: the next begins when other devices have had
    /// theirs.
    pub fn end_turn(&mut self) {
        self.cut_short = true;
    }

    /// How many chains the ring holds.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Gives a chain back with the first `len` of its writable bytes written, and interrupts if the driver
    /// wants to hear of it.
    ///
    /// # Errors
    /// The used ring cannot be written, or the available ring not read.
    pub fn complete(&mut self, ram: &GuestRam, chain: &Chain, len: u64) -> Result<(), DeviceFault> {
        self.complete_together(ram, [(chain, len)])
    }

    /// Gives chains back as [`Virtqueue::complete`] does, all at once: a driver that sees the first sees the
    /// last.
    ///
    /// # Errors
    /// As [`Virtqueue::complete`].
    pub fn complete_together<'a>(
        &mut self,
        ram: &GuestRam,
        chains: impl IntoIterator<Item = (&'a Chain, u64)>,
    ) -> Result<(), DeviceFault> {
        /// Flags and index, then 8 bytes for each element (virtio 1.2, section 2.7.8).
        const INDEX: u64 = 2;
        const HEADER: u64 = 4;
        const ELEMENT: u64 = 8;
        let (used, size) = (self.ring.used_ring(), self.ring.size());
        let old = self.ring.next_used();
        let mut new = old;
        for (chain, len) in chains {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            let element = [u32::from(chain.head()).to_le_bytes(), len.to_le_bytes()].concat();
            ram.write(used + HEADER + u64::from(new % size) * ELEMENT, &element)?;
            new = new.wrapping_add(1);
        }
        self.ring.set_next_used(new);
        // After the elements, for whoever reads the index.
        ram.memory().store(new.to_le(), GuestAddress(used + INDEX), Ordering::Release)?;
        ram.report(used, HEADER);
        if self.wants_interrupt(ram, old)? {
            self.signals.interrupt(VIRTIO_MMIO_INT_VRING);
        }
        Ok(())
    }

    /// Whether the driver wants to hear that the index of the used ring is no longer `old` (virtio 1.2,
    /// section 2.7.7.2). Without event indices it always does here: its flag is a hint.
    fn wants_interrupt(&self, ram: &GuestRam, old: u16) -> Result<bool, DeviceFault> {
        if !self.ring.event_idx_enabled() {
            return Ok(true);
        }
        // The new index is there before the driver's wish is read: it looks at the index after it wishes.
        fence(Ordering::SeqCst);
        let used_event = self.ring.avail_ring() + 4 + 2 * u64::from(self.ring.size());
        let event: u16 = ram.memory().load(GuestAddress(used_event), Ordering::Relaxed)?;
        let (new, event) = (self.ring.next_used(), u16::from_le(event));
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }
}
