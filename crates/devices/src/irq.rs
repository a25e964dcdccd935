//! How an interrupt leaves a device, and how it reaches the local APICs.

use std::fmt;

/// One interrupt wire, from a device to an interrupt controller's pin.
///
/// `true` means asserted whatever the electrical polarity: active-low is a property of the wire
/// that a guest programs, and no device here has a use for it.
pub trait IrqLine: Send + Sync {
    /// Drives the wire. Calling it again with the same level changes nothing.
    fn set(&self, asserted: bool);

    /// Asserts the wire and lets go: one edge.
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

impl fmt::Debug for dyn IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IrqLine")
    }
}

/// A wire that ends nowhere, for a device whose interrupt no controller takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unconnected;

impl IrqLine for Unconnected {
    fn set(&self, _asserted: bool) {}
}

/// The way to the local APICs: takes a message-signalled interrupt.
///
/// The layout is the one of SDM volume 3 section 10.11 ("Message Signalled Interrupts").
/// `address`: bits 31:20 FEEH, 19:12 destination, 3 redirection hint, 2 destination mode
/// (1 logical). `data`: bits 7:0 vector, 10:8 delivery mode, 14 assert, 15 trigger mode (1 level).
///
/// Called from any thread, and never while an interrupt controller's own lock is held.
pub trait MsiSink: Send + Sync {
    /// Delivers one message.
    fn deliver(&self, address: u64, data: u32);
}

impl fmt::Debug for dyn MsiSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MsiSink")
    }
}
