//! Device models: the chips of a PC that a kernel cannot do without, and virtio devices over
//! virtio-mmio.
//!
//! # The seam
//!
//! The crate knows no machine. A device answers at its registers as a [`Device`] on an [`IoBus`] or an
//! [`MmioBus`]; which addresses and which interrupts it has beyond what every PC has, its owner says.
//! Interrupts leave by an [`IrqLine`], and through the [`IoApic`] reach the processors by the owner's
//! [`MsiSink`]. Guest memory is a [`GuestRam`], whose writes a [`DmaObserver`] learns. What a guest
//! wants of the machine as a whole, reset and power-off, goes to a [`PowerSwitch`].
//!
//! # Threads
//!
//! Accesses to registers come from the threads of processors, and a processor waits for the answer. What
//! may take longer, the queues of virtio devices, is done by an [`IoLoop`] on the thread that runs it.
//! Long work looks at [`Halt`] before each piece.
//!
//! # Example
//!
//! A serial port on a bus of ports, as a processor's OUT and IN reach it.
//!
//! ```
//! use std::io::sink;
//! use std::sync::{Arc, Mutex};
//!
//! use cloister_devices::{IoBus, Place, SerialInput, SerialPort, Unconnected};
//!
//! let port = Arc::new(Mutex::new(SerialPort::new(Arc::new(Unconnected), Box::new(sink()))));
//! let input = SerialInput::new(port.clone());
//! let mut bus = IoBus::new();
//! let Some(Place::Ports { first, len }) = SerialPort::node().place else { panic!("COM1 has ports") };
//! bus.insert(first, len, port)?;
//!
//! input.push(b"l");
//! let (mut line_status, mut received) = ([0], [0]);
//! assert!(bus.read(first + 5, &mut line_status) && bus.read(first, &mut received));
//! assert_eq!((line_status[0] & 1, received), (1, *b"l"));
//! # Ok::<(), cloister_devices::BusError>(())
//! ```
//!
//! # Hostile guests
//!
//! Whatever a guest writes, a device answers it or leaves it: nothing here panics because of a guest,
//! and a request costs no more host memory than its device says.

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

mod aml;
mod bus;
#[cfg(test)]
mod chaos;
mod dma;
mod halt;
mod io;
mod ioapic;
mod irq;
mod node;
mod power;
mod reset;
mod rtc;
mod serial;
pub mod virtio;

pub use aml::AmlBytes;
pub use bus::{BusError, Device, IoBus, MmioBus, SharedDevice};
pub use dma::{DmaObserver, GuestRam};
pub use halt::Halt;
pub use io::{IoHandle, IoLoop};
pub use ioapic::{IOAPIC_PINS, IoApic};
pub use irq::{IrqLine, MsiSink, Unconnected};
pub use node::{Node, Place, Work, WorkThread};
pub use power::{PowerButton, PowerControl, PowerEvent, PowerSwitch, RESET_VALUE, S5_SLEEP_TYPE};
pub use reset::{KeyboardController, ResetControl, SystemControl};
pub use rtc::{Civil, RTC_CENTURY, Rtc, RtcTimer};
pub use serial::{SerialInput, SerialPort};
