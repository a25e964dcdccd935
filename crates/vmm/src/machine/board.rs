//! Which devices a machine has, and what a boot gives to them.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use cloister_devices::virtio::{
    Console, ConsoleInput, Entropy, FileSystem, MmioTransport, Net, VirtioDevice, Vsock, VsockHost,
};
use cloister_devices::{
    Device, GuestRam, Halt, IoApic, IoLoop, IrqLine, KeyboardController, Node, PowerButton,
    PowerControl, PowerSwitch, ResetControl, Rtc, RtcTimer, SerialInput, SerialPort, SystemControl,
    Unconnected, WorkThread,
};

use super::Machine;
use super::console::{ConsoleInputs, ConsoleOutput, LastPrinted, Screen};
use super::inventory::{Buses, Inventory, InventoryError, Made};
use crate::accel::Vm;
use crate::disk::Disk;
use crate::layout::{IOAPIC_BASE, MAX_VIRTIO_SLOTS, POWER_PORT, virtio_slot};
use crate::net::Network;
use crate::sandbox::Sandbox;

/// The list of a machine's devices.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) list: Inventory<Wiring>,
    /// Virtio slots that are taken.
    slots: u32,
}

impl Devices {
    /// Describes a virtio device in the next slot.
    fn slot(&mut self, kind: &str) -> Node {
        let (base, gsi) = virtio_slot(self.slots);
        let node = MmioTransport::node(self.slots, kind, base, gsi);
        self.slots += 1;
        node
    }

    /// Whether another virtio device fits.
    pub(super) const fn has_slot(&self) -> bool {
        (self.slots as usize) < MAX_VIRTIO_SLOTS
    }

    /// Adds a file system that the guest mounts by `tag`, which the other end of `server` serves.
    pub(super) fn add_file_system(&mut self, tag: String, server: Arc<OwnedFd>) {
        let node = self.slot("fs").with_sockets();
        self.list.add(node, move |node, boot| {
            boot.virtio(node, Box::new(FileSystem::new(&tag, server.clone())))
        });
    }

    /// Adds a vsock device of the guest with this CID, whose streams lead to `host`.
    pub(super) fn add_vsock(&mut self, cid: u32, host: Arc<dyn VsockHost>) {
        let node = self.slot("vsock").with_sockets();
        self.list.add(node, move |node, boot| {
            let failed = |source| InventoryError::Descriptor { id: node.id.clone(), source };
            let device = Vsock::new(cid, host.clone()).map_err(failed)?;
            boot.virtio(node, Box::new(device))
        });
    }

    /// Adds a network device on `network`.
    pub(super) fn add_network(&mut self, network: &Network) {
        let node = self.slot("net").with_sockets().with_tap(network.taps());
        let (mac, mtu, peers) = (network.mac(), network.mtu(), network.peers());
        self.list.add(node, move |node, boot| {
            let failed = |source| InventoryError::Descriptor { id: node.id.clone(), source };
            let device = Net::new(mac, mtu, peers.clone()).map_err(failed)?;
            boot.virtio(node, Box::new(device))
        });
    }
}

/// The devices of a machine with these disks. A new device gets its line here; disks come last, so that
/// adding one moves nothing but what is added to the machine later.
pub(super) fn devices(disks: &[Disk]) -> Devices {
    let mut list = Inventory::new();
    list.add(IoApic::node(IOAPIC_BASE), |_, boot: &mut Wiring| on_bus(boot.ioapic.clone()));
    list.add(PowerControl::node(POWER_PORT), |_, boot| {
        on_bus(PowerControl::new(boot.power.clone()))
    });
    list.add(KeyboardController::node(), |_, boot| {
        on_bus(KeyboardController::new(boot.power.clone()))
    });
    list.add(SystemControl::node(), |_, boot| on_bus(SystemControl::new(boot.power.clone())));
    list.add(ResetControl::node(), |_, boot| on_bus(ResetControl::new(boot.power.clone())));
    list.add(PowerButton::node(), |node, boot| {
        boot.button = Some(PowerButton::new(boot.line(node)));
        Ok(None)
    });
    list.add(Rtc::node(), |node, boot| {
        let rtc = Arc::new(Mutex::new(Rtc::new(boot.line(node))));
        let thread = RtcTimer::start(rtc.clone(), boot.confinement(node));
        let failed = |source| InventoryError::Thread { id: node.id.clone(), source };
        boot.threads.push(Box::new(thread.map_err(failed)?));
        Ok(Some(rtc))
    });
    list.add(SerialPort::node(), |node, boot| {
        let port = Arc::new(Mutex::new(SerialPort::new(boot.line(node), boot.output(false))));
        boot.serial = Some(SerialInput::new(port.clone()));
        Ok(Some(port))
    });
    let mut devices = Devices { list, slots: 0 };
    let node = devices.slot("rng");
    devices.list.add(node, |node, boot| boot.virtio(node, Box::new(Entropy)));
    let node = devices.slot("console");
    devices.list.add(node, |node, boot| {
        let (line, output) = (boot.line(node), boot.output(true));
        let (transport, input) = Console::attach(&boot.ram, line, output, None, &mut boot.io);
        boot.virtio = Some(input);
        Ok(Some(transport))
    });
    for (index, disk) in disks.iter().enumerate() {
        let mut node = devices.slot("blk");
        for &file in disk.descriptors() {
            node = node.with_file(file);
        }
        let disk = disk.clone();
        devices.list.add(node, move |node, boot| boot.virtio(node, Box::new(disk.device(index))));
    }
    devices
}

fn on_bus(device: impl Device + 'static) -> Made {
    Ok(Some(Arc::new(Mutex::new(device))))
}

/// What a boot gives to its devices, and what they leave with it.
pub(super) struct Wiring {
    ioapic: Arc<IoApic>,
    ram: GuestRam,
    io: IoLoop,
    power: Arc<PowerSwitch>,
    screen: Screen,
    last_printed: LastPrinted,
    halt: Halt,
    sandbox: Sandbox,
    serial: Option<SerialInput>,
    virtio: Option<ConsoleInput>,
    button: Option<PowerButton>,
    /// Threads of devices, each of which ends when its handle is dropped.
    threads: Vec<Box<dyn Send + Sync>>,
}

impl Wiring {
    /// The wire to the I/O APIC's input that `node` names.
    fn line(&self, node: &Node) -> Arc<dyn IrqLine> {
        let line = node.gsi.and_then(|gsi| self.ioapic.line(gsi));
        line.unwrap_or_else(|| Arc::new(Unconnected))
    }

    /// What a console prints to: the virtio console, or the serial port.
    fn output(&self, virtio: bool) -> Box<ConsoleOutput> {
        Box::new(ConsoleOutput {
            virtio,
            screen: self.screen.clone(),
            last_printed: self.last_printed.clone(),
            halt: self.halt.clone(),
        })
    }

    /// What the thread of a device begins with.
    fn confinement(&self, node: &Node) -> impl FnOnce() + Send + use<> {
        let sandbox = self.sandbox.clone();
        let kind = node.work.as_ref().map_or(WorkThread::Io, |work| work.thread).into();
        move || sandbox.confine(kind)
    }

    fn virtio(&mut self, node: &Node, device: Box<dyn VirtioDevice>) -> Made {
        let line = self.line(node);
        on_bus(MmioTransport::new(device, &self.ram, line, &mut self.io))
    }
}

/// The devices of one boot.
pub(super) struct Board {
    pub(super) buses: Buses,
    pub(super) ioapic: Arc<IoApic>,
    pub(super) inputs: ConsoleInputs,
    pub(super) power_button: Option<PowerButton>,
    pub(super) power: Arc<PowerSwitch>,
    /// What devices do on the I/O thread.
    pub(super) io: IoLoop,
    _threads: Vec<Box<dyn Send + Sync>>,
}

impl Board {
    /// Makes the devices of `machine` anew, with their work on `io`. Power requests go to `power`, what
    /// the guest prints goes to `screen`, and `halt` makes every device abandon what it is doing.
    pub(super) fn new(
        machine: &Machine,
        vm: &dyn Vm,
        power: &Arc<PowerSwitch>,
        screen: &Screen,
        halt: &Halt,
        io: IoLoop,
        sandbox: &Sandbox,
    ) -> Result<Self, InventoryError> {
        let mut wiring = Wiring {
            ioapic: Arc::new(IoApic::new(vm.msi_sink())),
            ram: GuestRam::new(machine.ram.clone(), vm.dma_observer()).until(halt.clone()),
            io,
            power: power.clone(),
            screen: screen.clone(),
            last_printed: Arc::new(AtomicBool::new(false)),
            halt: halt.clone(),
            sandbox: sandbox.clone(),
            serial: None,
            virtio: None,
            button: None,
            threads: Vec::new(),
        };
        let buses = machine.devices.list.make(&mut wiring)?;
        let Wiring { ioapic, io, power, last_printed, serial, virtio, button, threads, .. } =
            wiring;
        let inputs = ConsoleInputs { serial, virtio, last_printed };
        Ok(Self { buses, ioapic, inputs, power_button: button, power, io, _threads: threads })
    }
}
