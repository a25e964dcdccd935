//! A small virtio driver for the tests: it goes through the registers of the transport and rings
//! in guest memory, as a guest's driver does.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::device::{DeviceFault, VirtioDevice};
use super::mmio::MmioTransport;
use super::virtqueue::Virtqueue;
use crate::bus::Device;
use crate::dma::GuestRam;
use crate::io::IoLoop;
use crate::irq::IrqLine;

/// How long an interrupt may take.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const RAM: u64 = 16 << 20;
/// Where the buffers of requests begin: after the areas of any queue.
const BUFFERS: u64 = 0x20_0000;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A device of one queue of 8 that does with the queue what its function does.
pub(crate) struct Served<F>(pub(crate) F);

impl<F> VirtioDevice for Served<F>
where
    F: FnMut(&mut Virtqueue, &GuestRam) -> Result<(), DeviceFault> + Send,
{
    fn device_id(&self) -> u32 {
        43
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[8]
    }

    fn serve(
        &mut self,
        _index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        (self.0)(queue, ram)
    }

    fn reset(&mut self) {}
}

/// A device that answers each chain at once.
pub(crate) fn quick() -> Box<dyn VirtioDevice> {
    Box::new(Served(|queue: &mut Virtqueue, ram: &GuestRam| {
        while let Some(chain) = queue.pop(ram)? {
            queue.complete(ram, &chain, 0)?;
        }
        Ok(())
    }))
}

/// A device that puts the chain it just used back, as another vCPU might.
pub(crate) fn refill() -> Box<dyn VirtioDevice> {
    let mut used = 0_u16;
    Box::new(Served(move |queue: &mut Virtqueue, ram: &GuestRam| {
        while let Some(chain) = queue.pop(ram)? {
            queue.complete(ram, &chain, 0)?;
            used = used.wrapping_add(1);
            ram.write(areas(0).1 + 2, &used.wrapping_add(1).to_le_bytes())?;
        }
        Ok(())
    }))
}

/// Where queue `index` has its descriptors, driver area and device area.
pub(crate) fn areas(index: usize) -> (u64, u64, u64) {
    let base = 0x1_0000 * (index as u64 + 1);
    (base, base + 0x4000, base + 0x8000)
}

/// A buffer of a request.
pub(crate) enum Part<'a> {
    /// For the device to read.
    Read(&'a [u8]),
    /// So many bytes for the device to write.
    Write(u32),
}

/// A request that came back.
#[derive(Debug)]
pub(crate) struct Used {
    /// What the used ring says was written.
    pub(crate) len: u32,
    /// All of the buffers to write.
    pub(crate) written: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Wire {
    asserted: Mutex<bool>,
    changed: Condvar,
}

impl Wire {
    /// Waits for an interrupt.
    pub(crate) fn wait(&self) {
        let asserted = self.asserted.lock().unwrap();
        let waited = self.changed.wait_timeout_while(asserted, PATIENCE, |asserted| !*asserted);
        assert!(*waited.unwrap().0, "no interrupt");
    }
}

impl IrqLine for Wire {
    fn set(&self, asserted: bool) {
        *self.asserted.lock().unwrap() = asserted;
        self.changed.notify_all();
    }
}

#[derive(Default)]
struct Ring {
    size: u16,
    next_descriptor: u16,
    available: u16,
    seen: u16,
    /// The buffers to write of each chain, by head.
    pending: Vec<(u16, Vec<(u64, u32)>)>,
}

pub(crate) struct Driver {
    pub(crate) transport: Arc<Mutex<MmioTransport>>,
    pub(crate) ram: GuestRam,
    pub(crate) wire: Arc<Wire>,
    /// The device is served here, after each register that the driver writes; `None` if a thread does it.
    io: Option<IoLoop>,
    rings: Vec<Ring>,
    next_buffer: u64,
}

impl Driver {
    pub(crate) fn ram() -> GuestRam {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        GuestRam::new(memory, None)
    }

    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Self {
        let mut io = IoLoop::new().unwrap();
        let driver = Self::on(&mut io, device);
        Self { io: Some(io), ..driver }
    }

    /// A driver of a device that whoever has `io` serves.
    pub(crate) fn on(io: &mut IoLoop, device: Box<dyn VirtioDevice>) -> Self {
        let ram = Self::ram();
        let wire = Arc::new(Wire::default());
        let transport = MmioTransport::new(device, &ram, wire.clone(), io);
        let transport = Arc::new(Mutex::new(transport));
        Self { transport, ram, wire, io: None, rings: Vec::new(), next_buffer: BUFFERS }
    }

    pub(crate) fn attach(transport: Arc<Mutex<MmioTransport>>, ram: GuestRam, io: IoLoop) -> Self {
        let (wire, io) = (Arc::default(), Some(io));
        Self { transport, ram, wire, io, rings: Vec::new(), next_buffer: BUFFERS }
    }

    /// Does what the I/O thread does when it is woken, if there is none.
    pub(crate) fn work(&self) {
        if let Some(io) = &self.io {
            io.work_once();
        }
    }

    pub(crate) fn get(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.lock().unwrap().read(register, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn put(&self, register: u64, value: u32) {
        self.transport.lock().unwrap().write(register, &value.to_le_bytes());
        self.work();
    }

    pub(crate) fn config(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xee; len];
        self.transport.lock().unwrap().read(0x100 + offset, &mut data);
        data
    }

    pub(crate) fn offered(&self) -> u64 {
        self.put(0x014, 1);
        let high = u64::from(self.get(0x010));
        self.put(0x014, 0);
        high << 32 | u64::from(self.get(0x010))
    }

    pub(crate) fn asserted(&self) -> bool {
        *self.wire.asserted.lock().unwrap()
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.get(0x070) & 0x40 != 0
    }

    pub(crate) fn reset(&mut self) {
        self.put(0x070, 0);
        self.rings.clear();
    }

    /// Status and features up to FEATURES_OK; returns the status that the device then shows.
    pub(crate) fn agree(&mut self, features: u64) -> u32 {
        self.put(0x070, 0);
        self.put(0x070, 1);
        self.put(0x070, 3);
        self.put(0x024, 0);
        self.put(0x020, features as u32);
        self.put(0x024, 1);
        self.put(0x020, (features >> 32) as u32);
        self.put(0x070, 11);
        self.get(0x070)
    }

    /// Makes queue `index` ready with `size` descriptors, and returns what QueueReady then reads.
    pub(crate) fn set_up_queue(&mut self, index: usize, size: u16) -> u32 {
        let (descriptors, driver_area, device_area) = areas(index);
        self.ram.write(descriptors, &[0; 0xc000]).unwrap();
        self.put(0x030, index as u32);
        self.put(0x038, size.into());
        for (register, address) in
            [(0x080, descriptors), (0x090, driver_area), (0x0a0, device_area)]
        {
            self.put(register, address as u32);
            self.put(register + 4, (address >> 32) as u32);
        }
        self.put(0x044, 1);
        self.rings.resize_with(self.rings.len().max(index + 1), Ring::default);
        self.rings[index] = Ring { size, ..Ring::default() };
        self.get(0x044)
    }

    /// Brings the device up with `features` (and version 1) and all its queues.
    pub(crate) fn start(&mut self, features: u64) {
        assert_eq!(self.agree(features | VERSION_1), 11, "features are refused");
        for index in 0.. {
            self.put(0x030, index);
            let max = self.get(0x034);
            if max == 0 {
                break;
            }
            assert_eq!(self.set_up_queue(index as usize, max as u16), 1);
        }
        self.put(0x070, 15);
    }

    pub(crate) fn set_descriptor(
        &self,
        table: u64,
        index: u16,
        gpa: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&gpa.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&next.to_le_bytes());
        self.ram.write(table + 16 * u64::from(index), &bytes).unwrap();
    }

    /// Puts `head` in the available ring, whatever is there.
    pub(crate) fn make_available(&mut self, index: usize, head: u16) {
        let (_, driver_area, _) = areas(index);
        let ring = &mut self.rings[index];
        let slot = u64::from(ring.available % ring.size);
        ring.available = ring.available.wrapping_add(1);
        self.ram.write(driver_area + 4 + 2 * slot, &head.to_le_bytes()).unwrap();
        self.ram.write(driver_area + 2, &ring.available.to_le_bytes()).unwrap();
    }

    /// Adds a request without a notification.
    pub(crate) fn offer(&mut self, index: usize, parts: &[Part<'_>]) {
        let (descriptors, _, _) = areas(index);
        let ring = &mut self.rings[index];
        let (size, first) = (ring.size, ring.next_descriptor);
        ring.next_descriptor = (first + parts.len() as u16) % size;
        let mut writable = Vec::new();
        for (at, part) in (0_u16..).zip(parts) {
            let gpa = self.next_buffer;
            let (len, mut flags) = match part {
                Part::Read(data) => {
                    self.ram.write(gpa, data).unwrap();
                    (data.len() as u32, 0)
                }
                Part::Write(len) => {
                    writable.push((gpa, *len));
                    (*len, WRITE)
                }
            };
            // Odd addresses, and a gap after each buffer.
            self.next_buffer += u64::from(len) + 3;
            if usize::from(at) + 1 < parts.len() {
                flags |= NEXT;
            }
            let slot = (first + at) % size;
            self.set_descriptor(descriptors, slot, gpa, len, flags, (slot + 1) % size);
        }
        self.rings[index].pending.push((first, writable));
        self.make_available(index, first);
    }

    /// Lets the next request have the same memory as the first one had.
    pub(crate) fn reuse_buffers(&mut self) {
        self.next_buffer = BUFFERS;
    }

    /// Lets the next requests have memory from `gpa` on.
    pub(crate) fn place_buffers(&mut self, gpa: u64) {
        self.next_buffer = gpa;
    }

    pub(crate) fn notify(&self, index: usize) {
        self.put(0x050, index as u32);
    }

    pub(crate) fn take_used(&mut self, index: usize) -> Vec<Used> {
        let (_, _, device_area) = areas(index);
        let mut done = [0; 2];
        self.ram.read(device_area + 2, &mut done).unwrap();
        let mut all = Vec::new();
        let ring = &mut self.rings[index];
        while ring.seen != u16::from_le_bytes(done) {
            let mut element = [0; 8];
            let slot = u64::from(ring.seen % ring.size);
            self.ram.read(device_area + 4 + 8 * slot, &mut element).unwrap();
            ring.seen = ring.seen.wrapping_add(1);
            let (head, len) = element.split_at(4);
            let head = u32::from_le_bytes(head.try_into().unwrap());
            let at = ring.pending.iter().position(|&(at, _)| u32::from(at) == head).unwrap();
            let (_, buffers) = ring.pending.remove(at);
            let mut written = Vec::new();
            for (gpa, len) in buffers {
                let mut data = vec![0; len as usize];
                self.ram.read(gpa, &mut data).unwrap();
                written.extend(data);
            }
            all.push(Used { len: u32::from_le_bytes(len.try_into().unwrap()), written });
        }
        all
    }

    /// One request there and back, with the interrupt acknowledged.
    pub(crate) fn request(&mut self, index: usize, parts: &[Part<'_>]) -> Used {
        self.offer(index, parts);
        self.notify(index);
        let pending = self.get(0x060);
        self.put(0x064, pending);
        let mut used = self.take_used(index);
        assert_eq!(used.len(), 1, "the device did not answer");
        used.remove(0)
    }
}
