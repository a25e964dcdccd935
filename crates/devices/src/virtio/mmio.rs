//! The virtio-mmio transport, version 2 (virtio 1.2, section 4.2).

use std::sync::Arc;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::device::{DeviceFault, VirtioDevice};
use super::service::Service;
use super::virtqueue::QueueSetup;
use crate::aml::AcpiDevice;
use crate::bus::Device;
use crate::dma::GuestRam;
use crate::io::IoLoop;
use crate::irq::IrqLine;
use crate::node::{Node, WorkThread};

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "CLST": the vendor is whoever made the subsystem, and drivers do not look.
const VENDOR: u32 = 0x5453_4c43;
const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;
/// Bytes of a device's registers: 100H of transport, then its configuration space.
const LEN: u64 = 0x200;

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
/// What the transport offers for each device.
const TRANSPORT_FEATURES: u64 = VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | EVENT_IDX;

/// A queue's registers.
#[derive(Debug)]
struct QueueRegisters {
    max_size: u16,
    setup: QueueSetup,
    ready: bool,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        let setup = QueueSetup { size: max_size.into(), ..QueueSetup::default() };
        Self { max_size, setup, ready: false }
    }
}

/// A virtio device at its registers on the memory bus.
///
/// Queues are served on the I/O thread. An access to registers waits for it in two places only, where the
/// driver takes its buffers back: a reset, and a queue that is stopped.
#[derive(Debug)]
pub struct MmioTransport {
    service: Arc<Service>,
    device_id: u32,
    /// The features that are offered.
    offered: u64,
    queues: Vec<QueueRegisters>,
    device_features_page: u32,
    driver_features_page: u32,
    driver_features: u64,
    queue_select: u32,
}

impl MmioTransport {
    /// The `index`-th virtio device, which is a `kind`, at `base`. Its interrupt is level triggered:
    /// asserted until InterruptACK. A disk's node is told its file besides.
    ///
    /// # Panics
    /// The registers pass 4 GiB.
    #[must_use]
    pub fn node(index: u32, kind: &str, base: u64, gsi: u32) -> Node {
        let name = format!("VR{index:02X}");
        let acpi = AcpiDevice { name: &name, hid: "LNRO0005", uid: Some(index), edge: false };
        Node::in_memory(format!("virtio{index}-{kind}"), base, LEN)
            .with_gsi(gsi)
            .in_dsdt(&acpi)
            .working_on(WorkThread::Io)
    }

    /// Gives `device` registers, and its queues to `io`. It reaches guest memory through `ram`, and
    /// `line` is asserted as long as an interrupt status bit is set.
    ///
    /// # Panics
    /// The device names a queue size that cannot be.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        ram: &GuestRam,
        line: Arc<dyn IrqLine>,
        io: &mut IoLoop,
    ) -> Self {
        let device_id = device.device_id();
        let offered = device.features() | TRANSPORT_FEATURES;
        let queues = device.queue_sizes().iter().map(|&size| QueueRegisters::new(size)).collect();
        let service = Arc::new(Service::new(device, ram, line, io.handle().clone()));
        io.add(service.clone());
        Self {
            service,
            device_id,
            offered,
            queues,
            device_features_page: 0,
            driver_features_page: 0,
            driver_features: 0,
            queue_select: 0,
        }
    }

    /// What serves the queues.
    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The driver's zero in the status register (virtio 1.2, section 4.2.2.1). Drivers need not wait for
    /// the status to read as zero, so the device is done with their buffers when this returns.
    fn reset(&mut self) {
        self.service.reset();
        self.queues.iter_mut().for_each(|queue| *queue = QueueRegisters::new(queue.max_size));
        self.device_features_page = 0;
        self.driver_features_page = 0;
        self.driver_features = 0;
        self.queue_select = 0;
    }

    fn selected(&mut self) -> Option<&mut QueueRegisters> {
        self.queues.get_mut(usize::try_from(self.queue_select).ok()?)
    }

    /// The selected queue, while its registers may be written: before it is ready.
    fn queue_in_setup(&mut self) -> Option<&mut QueueRegisters> {
        self.selected().filter(|queue| !queue.ready)
    }

    fn read_register(&mut self, register: u32) -> u32 {
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device_id,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.device_features_page {
                0 => (self.offered & 0xffff_ffff) as u32,
                1 => (self.offered >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.selected().map_or(0, |queue| queue.max_size.into()),
            VIRTIO_MMIO_QUEUE_READY => self.selected().map_or(0, |queue| u32::from(queue.ready)),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.service.signals().interrupt_status(),
            VIRTIO_MMIO_STATUS => self.service.signals().status(),
            // There are no shared memory regions: length and address are -1.
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            VIRTIO_MMIO_CONFIG_GENERATION => self.service.config_generation(),
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u32, value: u32) {
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_page = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_page = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.write_driver_features(value),
            VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            VIRTIO_MMIO_QUEUE_READY => self.write_queue_ready(value & 1 != 0),
            VIRTIO_MMIO_QUEUE_NOTIFY => self.service.request(value as usize),
            VIRTIO_MMIO_INTERRUPT_ACK => self.service.signals().acknowledge(value),
            VIRTIO_MMIO_STATUS => self.write_status(value),
            _ => self.write_queue_setup(register, value),
        }
    }

    fn write_driver_features(&mut self, value: u32) {
        // Agreed features stay agreed until reset (virtio 1.2, section 3.1.1).
        if self.service.signals().has(VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        let value = u64::from(value);
        match self.driver_features_page {
            0 => self.driver_features = self.driver_features >> 32 << 32 | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    fn write_queue_setup(&mut self, register: u32, value: u32) {
        let Some(queue) = self.queue_in_setup() else { return };
        let setup = &mut queue.setup;
        match register {
            VIRTIO_MMIO_QUEUE_NUM => setup.size = value,
            VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut setup.descriptors, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut setup.descriptors, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut setup.driver_area, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut setup.driver_area, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut setup.device_area, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut setup.device_area, value),
            _ => {}
        }
    }

    fn write_queue_ready(&mut self, ready: bool) {
        let event_idx = self.driver_features & EVENT_IDX != 0;
        let agreed = self.service.signals().has(VIRTIO_CONFIG_S_FEATURES_OK);
        let index = self.queue_select as usize;
        let Some(queue) = self.queues.get_mut(index) else { return };
        if !ready {
            if std::mem::take(&mut queue.ready) {
                self.service.stop_queue(index);
            }
        } else if agreed && !queue.ready {
            queue.ready = self.service.start_queue(index, &queue.setup, event_idx);
            if !queue.ready {
                self.service.fail(&DeviceFault::QueueSetup { queue: index });
            }
        }
    }

    /// The driver's side of the device status (virtio 1.2, sections 2.1 and 3.1.1). Bits are
    /// only added, each not before those that it builds on; zero resets.
    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let plain = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED;
        let (service, signals) = (&self.service, self.service.signals());
        let added = value & !signals.status();
        signals.add_status(added & plain);
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0
            && signals.has(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
            && self.driver_features & VERSION_1 != 0
            && self.driver_features & !self.offered == 0
        {
            signals.add_status(VIRTIO_CONFIG_S_FEATURES_OK);
            service.activate(self.driver_features);
        }
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 && signals.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            signals.add_status(VIRTIO_CONFIG_S_DRIVER_OK);
            if signals.has(VIRTIO_CONFIG_S_NEEDS_RESET) {
                signals.interrupt(VIRTIO_MMIO_INT_CONFIG);
            }
            // What the driver or the host put in before counts from now on.
            service.request_all();
        }
    }
}

/// The transport register at `offset`, if one can begin there.
fn register(offset: u64) -> Option<u32> {
    let aligned = offset < CONFIG && offset.is_multiple_of(4);
    u32::try_from(offset).ok().filter(|_| aligned)
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address >> 32 << 32 | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & 0xffff_ffff | u64::from(value) << 32;
}

/// Transport registers take aligned accesses of 32 bits only (virtio 1.2, section 4.2.2.2):
/// others read as zero and write nothing. The configuration space is read by any.
impl Device for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            return self.service.read_config(at, data);
        }
        data.fill(0);
        if let (Some(register), 4) = (register(offset), data.len()) {
            data.copy_from_slice(&self.read_register(register).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Some(register), &[a, b, c, d]) = (register(offset), data) {
            self.write_register(register, u32::from_le_bytes([a, b, c, d]));
        }
    }
}

#[cfg(test)]
mod tests;
