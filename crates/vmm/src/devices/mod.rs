//! The machine's devices: buses, interrupt plumbing, and what sits on them.

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

pub use bus::{BusError, Device, IoBus, MmioBus, SharedDevice};
pub use dma::{DmaObserver, GuestRam};
pub use halt::Halt;
pub use io::{IoHandle, IoLoop};
pub use ioapic::{IOAPIC_PINS, IoApic};
pub use irq::{IrqLine, MsiSink, Unconnected};
pub use node::{AcpiDevice, Node, Place};
pub use power::{
    POWER_BUTTON_GSI, PowerButton, PowerControl, PowerEvent, PowerSwitch, RESET_VALUE,
    S5_SLEEP_TYPE,
};
pub use reset::{KeyboardController, ResetControl, SystemControl};
pub use rtc::{RTC_CENTURY, Rtc, RtcTimer};
pub use serial::{SerialInput, SerialPort};
