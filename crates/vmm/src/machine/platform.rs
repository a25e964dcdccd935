//! The devices of one boot, on their buses.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use thiserror::Error;

use super::console::{ConsoleInputs, ConsoleOutput, Screen};
use super::{Disk, Machine};
use crate::accel::Vm;
use crate::devices::virtio::{BlockError, Console, Entropy, MmioSlot, MmioTransport, VirtioDevice};
use crate::devices::{
    BusError, COM1_GSI, COM1_LEN, COM1_PORT, GuestRam, Halt, IOAPIC_LEN, IoApic, IoBus, IrqLine,
    KeyboardController, MmioBus, POWER_BUTTON_GSI, PowerButton, PowerControl, PowerSwitch, RTC_GSI,
    RTC_LEN, RTC_PORT, ResetControl, Rtc, RtcTimer, SerialInput, SerialPort, SharedDevice,
    SystemControl, Unconnected,
};
use crate::layout::{IOAPIC_BASE, POWER_PORT, VIRTIO_GSI, VIRTIO_MMIO_BASE};
use crate::sandbox::Sandbox;

/// Why the devices cannot be put together.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// Two devices at one address.
    #[error("cannot place a device")]
    Bus(#[from] BusError),
    /// A disk image that was fine when the machine was made.
    #[error("cannot open a disk image again")]
    Disk(#[from] BlockError),
    /// The host has no thread for the clock.
    #[error("cannot start the real-time clock")]
    Clock(#[from] io::Error),
}

/// The devices of one boot.
pub(super) struct Platform {
    pub(super) io: IoBus,
    pub(super) mmio: MmioBus,
    pub(super) ioapic: Arc<IoApic>,
    pub(super) inputs: ConsoleInputs,
    pub(super) power_button: PowerButton,
    pub(super) power: Arc<PowerSwitch>,
    /// Raises the clock's interrupts as long as it lives.
    _clock: RtcTimer,
}

/// Virtio devices of every machine: random numbers and a console. Disks come after them, so that
/// adding one moves nothing.
const FIXED_VIRTIO_SLOTS: usize = 2;

/// Virtio-mmio slots of a machine with `disks` disks.
pub(super) const fn virtio_slots(disks: usize) -> usize {
    FIXED_VIRTIO_SLOTS + disks
}

impl Platform {
    /// Puts the devices of `machine` on new buses. Power requests go to `power`, what the guest
    /// prints goes to `screen`, and `halt` makes every device leave off what it is doing.
    pub(super) fn new(
        machine: &Machine,
        vm: &dyn Vm,
        power: &Arc<PowerSwitch>,
        screen: &Screen,
        halt: &Halt,
        sandbox: &Sandbox,
    ) -> Result<Self, PlatformError> {
        let (mut io, mut mmio) = (IoBus::new(), MmioBus::new());
        let ioapic = Arc::new(IoApic::new(vm.msi_sink()));
        mmio.insert(IOAPIC_BASE, IOAPIC_LEN, shared(ioapic.clone()))?;

        io.insert(POWER_PORT, PowerControl::LEN, shared(PowerControl::new(power.clone())))?;
        let keyboard = shared(KeyboardController::new(power.clone()));
        io.insert(KeyboardController::PORT, KeyboardController::LEN, keyboard)?;
        io.insert(SystemControl::PORT, 1, shared(SystemControl::new(power.clone())))?;
        let reset_control = shared(ResetControl::new(power.clone()));
        io.insert(ResetControl::PORT, ResetControl::LEN, reset_control)?;

        let rtc = Arc::new(Mutex::new(Rtc::new(line(&ioapic, RTC_GSI))));
        io.insert(RTC_PORT, RTC_LEN, rtc.clone())?;
        let clock = RtcTimer::start(rtc, sandbox.clone())?;

        let last_printed = Arc::new(AtomicBool::new(false));
        let output = |virtio| {
            Box::new(ConsoleOutput {
                virtio,
                screen: screen.clone(),
                last_printed: last_printed.clone(),
                halt: halt.clone(),
            })
        };
        let serial = SerialPort::new(line(&ioapic, COM1_GSI), output(false));
        let serial = Arc::new(Mutex::new(serial));
        io.insert(COM1_PORT, COM1_LEN, serial.clone())?;

        let ram = GuestRam::new(machine.ram.clone(), vm.dma_observer()).until(halt.clone());
        let mut slots = Slots { next: 0, ioapic: &ioapic, ram: &ram, bus: &mut mmio };
        slots.insert(Box::new(Entropy))?;
        let virtio = slots.insert_console(output(true))?;
        for (index, disk) in machine.disks.iter().enumerate() {
            slots.insert(Box::new(Disk::device(disk, index)?))?;
        }

        let inputs = ConsoleInputs { serial: SerialInput::new(serial), virtio, last_printed };
        let power_button = PowerButton::new(line(&ioapic, POWER_BUTTON_GSI));
        Ok(Self { io, mmio, ioapic, inputs, power_button, power: power.clone(), _clock: clock })
    }
}

/// Virtio-mmio slots as they are filled, in order.
struct Slots<'a> {
    next: u32,
    ioapic: &'a Arc<IoApic>,
    ram: &'a GuestRam,
    bus: &'a mut MmioBus,
}

impl Slots<'_> {
    fn take(&mut self) -> (MmioSlot, Arc<dyn IrqLine>) {
        let slot = MmioSlot::nth(VIRTIO_MMIO_BASE, VIRTIO_GSI, self.next);
        self.next += 1;
        (slot, line(self.ioapic, slot.gsi))
    }

    fn insert(&mut self, device: Box<dyn VirtioDevice>) -> Result<(), BusError> {
        let (slot, line) = self.take();
        let transport = MmioTransport::new(device, self.ram.clone(), line);
        self.bus.insert(slot.base, slot.len, shared(transport))
    }

    fn insert_console(
        &mut self,
        output: Box<ConsoleOutput>,
    ) -> Result<crate::devices::virtio::ConsoleInput, BusError> {
        let (slot, line) = self.take();
        let (transport, input) = Console::attach(self.ram.clone(), line, output, None);
        self.bus.insert(slot.base, slot.len, transport)?;
        Ok(input)
    }
}

fn shared(device: impl crate::devices::Device + 'static) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

/// The wire to an I/O APIC input.
fn line(ioapic: &Arc<IoApic>, gsi: u32) -> Arc<dyn IrqLine> {
    ioapic.line(gsi).unwrap_or_else(|| Arc::new(Unconnected))
}
