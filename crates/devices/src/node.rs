//! What a machine's list of its devices says of one.

use std::os::fd::RawFd;

use crate::aml::{AcpiDevice, AmlBytes};

/// Where a device's registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// I/O ports.
    Ports {
        /// The first.
        first: u16,
        /// How many.
        len: u16,
    },
    /// Guest-physical memory.
    Memory {
        /// Its first address.
        base: u64,
        /// Bytes.
        len: u64,
    },
}

/// Which thread does a device's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkThread {
    /// That of the [`IoLoop`](crate::IoLoop).
    Io,
    /// One of its own, of this name.
    Own(&'static str),
}

/// What a device does besides answering at its registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    /// Where it is done.
    pub thread: WorkThread,
    /// The host's files that the device reads, writes, flushes and punches holes in there. What a
    /// console prints to is not among them: any thread may print.
    pub files: Vec<RawFd>,
    /// It moves data on stream sockets: those that are open, and those that are accepted or handed to it.
    pub sockets: bool,
    /// Interfaces of the host (tap) that it tells there which offloads the guest takes: the first queue of each.
    pub taps: Vec<RawFd>,
    /// Further queues of such interfaces, which it attaches and detaches.
    pub tap_queues: Vec<RawFd>,
}

/// A device of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name among the machine's devices.
    pub id: String,
    /// Its registers, if it has any.
    pub place: Option<Place>,
    /// Global system interrupt, if it has one.
    pub gsi: Option<u32>,
    /// What the DSDT says of it in `\_SB`: nothing, if a guest finds it by itself.
    pub aml: AmlBytes,
    /// What it does besides answering at its registers, if anything.
    pub work: Option<Work>,
}

impl Node {
    /// A device with neither registers, interrupt nor work, of which the DSDT says nothing.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), place: None, gsi: None, aml: AmlBytes::default(), work: None }
    }

    /// As [`Node::new`], with `len` bytes of registers in memory from `base` on.
    #[must_use]
    pub fn in_memory(id: impl Into<String>, base: u64, len: u64) -> Self {
        Self { place: Some(Place::Memory { base, len }), ..Self::new(id) }
    }

    /// As [`Node::new`], with `len` ports from `first` on.
    #[must_use]
    pub fn at_ports(id: impl Into<String>, first: u16, len: u16) -> Self {
        Self { place: Some(Place::Ports { first, len }), ..Self::new(id) }
    }

    /// The device with an interrupt.
    #[must_use]
    pub(crate) fn with_gsi(self, gsi: u32) -> Self {
        Self { gsi: Some(gsi), ..self }
    }

    /// The device as the DSDT describes it: with the registers and the interrupt that it has so far.
    #[must_use]
    pub(crate) fn in_dsdt(self, device: &AcpiDevice<'_>) -> Self {
        Self { aml: device.aml(&self), ..self }
    }

    /// The device with work on `thread`.
    #[must_use]
    pub(crate) fn working_on(self, thread: WorkThread) -> Self {
        Self {
            work: Some(Work {
                thread,
                files: Vec::new(),
                sockets: false,
                taps: Vec::new(),
                tap_queues: Vec::new(),
            }),
            ..self
        }
    }

    /// The device, whose work is on stream sockets too. One without work has none on them.
    #[must_use]
    pub fn with_sockets(mut self) -> Self {
        if let Some(work) = &mut self.work {
            work.sockets = true;
        }
        self
    }

    /// The device, whose work is on these open queues of an interface too, if there are any. One without work
    /// has none on interfaces.
    #[must_use]
    pub fn with_tap(mut self, queues: &[RawFd]) -> Self {
        if let (Some(work), Some((first, others))) = (&mut self.work, queues.split_first()) {
            work.taps.push(*first);
            work.tap_queues.extend(others);
        }
        self
    }

    /// The device, whose work is on the open file `file` too. One without work has none on files.
    #[must_use]
    pub fn with_file(mut self, file: RawFd) -> Self {
        if let Some(work) = &mut self.work {
            work.files.push(file);
        }
        self
    }
}
