//! The devices of one boot, on their buses.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use thiserror::Error;

use super::console::{ConsoleInputs, ConsoleOutput, Screen};
use super::inventory::{Inventory, InventoryError};
use super::{Disk, Machine};
use crate::accel::Vm;
use crate::layout::{IOAPIC_BASE, POWER_PORT, virtio_slot};
use crate::sandbox::{Sandbox, ThreadKind};
use cloister_devices::virtio::{
    BlockError, Console, ConsoleInput, Entropy, MmioTransport, VirtioDevice,
};
use cloister_devices::{
    GuestRam, Halt, IoApic, IoLoop, IrqLine, KeyboardController, Node, POWER_BUTTON_GSI,
    PowerButton, PowerControl, PowerSwitch, ResetControl, Rtc, RtcTimer, SerialInput, SerialPort,
    SharedDevice, SystemControl, Unconnected,
};

/// Why the devices cannot be put together.
#[derive(Debug, Error)]
pub enum BoardError {
    /// Two devices at one address.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A disk image that was fine when the machine was made.
    #[error("cannot open a disk image again")]
    Disk(#[from] BlockError),
    /// The host has no thread for the clock.
    #[error("cannot start the real-time clock")]
    Clock(#[from] io::Error),
}

/// The devices of one boot.
pub(super) struct Board {
    pub(super) inventory: Inventory,
    pub(super) ioapic: Arc<IoApic>,
    pub(super) inputs: ConsoleInputs,
    pub(super) power_button: PowerButton,
    pub(super) power: Arc<PowerSwitch>,
    /// What devices do on the I/O thread.
    pub(super) io: IoLoop,
    /// Raises the clock's interrupts as long as it lives.
    _clock: RtcTimer,
}

impl Board {
    /// Puts the devices of `machine` on new buses, and their work on `io`. Power requests go to `power`,
    /// what the guest prints goes to `screen`, and `halt` makes every device leave off what it is doing.
    pub(super) fn new(
        machine: &Machine,
        vm: &dyn Vm,
        power: &Arc<PowerSwitch>,
        screen: &Screen,
        halt: &Halt,
        mut io: IoLoop,
        sandbox: &Sandbox,
    ) -> Result<Self, BoardError> {
        let mut inventory = Inventory::new();
        let ioapic = Arc::new(IoApic::new(vm.msi_sink()));
        inventory.add(IoApic::node(IOAPIC_BASE), shared(ioapic.clone()))?;
        inventory.add(PowerControl::node(POWER_PORT), shared(PowerControl::new(power.clone())))?;
        let keyboard = KeyboardController::new(power.clone());
        inventory.add(KeyboardController::node(), shared(keyboard))?;
        inventory.add(SystemControl::node(), shared(SystemControl::new(power.clone())))?;
        inventory.add(ResetControl::node(), shared(ResetControl::new(power.clone())))?;

        let node = Rtc::node();
        let rtc = Arc::new(Mutex::new(Rtc::new(line(&ioapic, node.gsi))));
        inventory.add(node, rtc.clone())?;
        let clock = RtcTimer::start(rtc, {
            let sandbox = sandbox.clone();
            move || sandbox.confine(ThreadKind::Clock)
        })?;

        let last_printed = Arc::new(AtomicBool::new(false));
        let output = |virtio| {
            Box::new(ConsoleOutput {
                virtio,
                screen: screen.clone(),
                last_printed: last_printed.clone(),
                halt: halt.clone(),
            })
        };
        let node = SerialPort::node();
        let serial = SerialPort::new(line(&ioapic, node.gsi), output(false));
        let serial = Arc::new(Mutex::new(serial));
        inventory.add(node, serial.clone())?;

        let ram = GuestRam::new(machine.ram.clone(), vm.dma_observer()).until(halt.clone());
        // Disks come last, so that adding one moves nothing.
        let mut slots =
            Slots { next: 0, ioapic: &ioapic, ram: &ram, inventory: &mut inventory, io: &mut io };
        slots.insert("rng", Box::new(Entropy))?;
        let virtio = slots.insert_console(output(true))?;
        for (index, disk) in machine.disks.iter().enumerate() {
            slots.insert("blk", Box::new(Disk::device(disk, index)?))?;
        }

        let inputs = ConsoleInputs { serial: SerialInput::new(serial), virtio, last_printed };
        let power_button = PowerButton::new(line(&ioapic, Some(POWER_BUTTON_GSI)));
        let power = power.clone();
        Ok(Self { inventory, ioapic, inputs, power_button, power, io, _clock: clock })
    }
}

/// Virtio-mmio devices as they are added, in order.
struct Slots<'a> {
    next: u32,
    ioapic: &'a Arc<IoApic>,
    ram: &'a GuestRam,
    inventory: &'a mut Inventory,
    io: &'a mut IoLoop,
}

impl Slots<'_> {
    fn take(&mut self, kind: &str) -> (Node, Arc<dyn IrqLine>) {
        let (base, gsi) = virtio_slot(self.next);
        let node = MmioTransport::node(self.next, kind, base, gsi);
        self.next += 1;
        let line = line(self.ioapic, node.gsi);
        (node, line)
    }

    fn insert(&mut self, kind: &str, device: Box<dyn VirtioDevice>) -> Result<(), InventoryError> {
        let (node, line) = self.take(kind);
        self.inventory.add(node, shared(MmioTransport::new(device, self.ram, line, self.io)))
    }

    fn insert_console(
        &mut self,
        output: Box<ConsoleOutput>,
    ) -> Result<ConsoleInput, InventoryError> {
        let (node, line) = self.take("console");
        let (transport, input) = Console::attach(self.ram, line, output, None, self.io);
        self.inventory.add(node, transport)?;
        Ok(input)
    }
}

fn shared(device: impl cloister_devices::Device + 'static) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

/// The wire to an I/O APIC input.
fn line(ioapic: &Arc<IoApic>, gsi: Option<u32>) -> Arc<dyn IrqLine> {
    gsi.and_then(|gsi| ioapic.line(gsi)).unwrap_or_else(|| Arc::new(Unconnected))
}
