//! What a virtio device and its driver tell each other besides the queues: the device status and the
//! interrupt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::irq::IrqLine;

/// Device status and interrupt status. Both are changed by registers, on processors' threads, and by the
/// I/O thread.
#[derive(Debug)]
pub(super) struct Signals {
    bits: Mutex<Bits>,
    /// Asserted as long as a bit of the interrupt status is set.
    line: Arc<dyn IrqLine>,
}

#[derive(Debug, Default)]
struct Bits {
    status: u32,
    interrupt: u32,
}

impl Signals {
    pub(super) fn new(line: Arc<dyn IrqLine>) -> Self {
        Self { bits: Mutex::default(), line }
    }

    /// The device status (virtio 1.2, section 2.1).
    pub(super) fn status(&self) -> u32 {
        self.lock().status
    }

    /// Whether all of these bits of the device status are set.
    pub(super) fn has(&self, status: u32) -> bool {
        self.status() & status == status
    }

    pub(super) fn add_status(&self, bits: u32) {
        self.lock().status |= bits;
    }

    /// Why the line is asserted (virtio 1.2, section 4.2.2, InterruptStatus).
    pub(super) fn interrupt_status(&self) -> u32 {
        self.lock().interrupt
    }

    /// Sets a bit of the interrupt status, until the driver acknowledges it.
    pub(super) fn interrupt(&self, bit: u32) {
        self.change(|bits| bits.interrupt |= bit);
    }

    pub(super) fn acknowledge(&self, interrupts: u32) {
        self.change(|bits| bits.interrupt &= !interrupts);
    }

    /// Back to the state after reset.
    pub(super) fn clear(&self) {
        self.change(|bits| *bits = Bits::default());
    }

    fn change(&self, change: impl FnOnce(&mut Bits)) {
        let mut bits = self.lock();
        change(&mut bits);
        // Under the lock: the line follows the last change, whoever made it.
        self.line.set(bits.interrupt != 0);
    }

    fn lock(&self) -> MutexGuard<'_, Bits> {
        self.bits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
