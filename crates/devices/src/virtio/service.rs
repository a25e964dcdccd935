//! A virtio device on the I/O thread: its queues are served there, as the driver and the host ask for it.
//!
//! A lock that is held for moments guards what registers need; queues and device have locks that
//! are held for as long as a queue is served. A processor takes the latter only where the driver is to be
//! told that nothing is in flight any more: at a reset, and where it stops a queue. The service is asked to
//! stop then, so that this takes as long as a piece of a request.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_NEEDS_RESET,
};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_CONFIG;

use super::device::{DeviceFault, VirtioDevice};
use super::signals::Signals;
use super::virtqueue::{QueueSetup, Virtqueue};
use crate::dma::GuestRam;
use crate::halt::Halt;
use crate::io::{IoHandle, IoWork};
use crate::irq::IrqLine;

/// A device, its queues and what is asked of them.
#[derive(Debug)]
pub(super) struct Service {
    device_id: u32,
    device: Mutex<Box<dyn VirtioDevice>>,
    queues: Vec<ServedQueue>,
    signals: Arc<Signals>,
    config: Mutex<Config>,
    io: IoHandle,
    /// Queues that the host has something for when these are readable.
    events: Vec<(usize, Arc<OwnedFd>)>,
}

/// The device's configuration space, as drivers read it.
#[derive(Debug)]
struct Config {
    bytes: Box<[u8]>,
    /// How often it has changed.
    generation: u32,
}

#[derive(Debug)]
struct ServedQueue {
    /// There is something to do in the queue, or may be.
    requested: AtomicBool,
    /// The driver wants to have the queue back.
    cancel: Halt,
    /// RAM for requests of this queue, which `cancel` calls off too.
    ram: GuestRam,
    /// Locked after the device.
    queue: Mutex<Virtqueue>,
}

impl Service {
    /// # Panics
    /// The device names a queue size that cannot be.
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        ram: &GuestRam,
        line: Arc<dyn IrqLine>,
        io: IoHandle,
    ) -> Self {
        let signals = Arc::new(Signals::new(line));
        let queue = |&size: &u16| {
            let cancel = ram.halt().part();
            ServedQueue {
                requested: AtomicBool::new(false),
                ram: ram.clone().until(cancel.clone()),
                cancel,
                queue: Mutex::new(Virtqueue::new(size, signals.clone(), io.pausing().clone())),
            }
        };
        let queues = device.queue_sizes().iter().map(queue).collect();
        let (device_id, events) = (device.device_id(), device.host_events());
        let config = Mutex::new(Config { bytes: device.config().into(), generation: 0 });
        Self { device_id, device: Mutex::new(device), queues, signals, config, io, events }
    }

    /// Fills `data` from `offset` of the configuration space, and with zeros past its end.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = lock(&self.config);
        let rest = usize::try_from(offset).ok().and_then(|at| config.bytes.get(at..));
        data.fill(0);
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    /// A number that is another after each change of the configuration space.
    pub(super) fn config_generation(&self) -> u32 {
        lock(&self.config).generation
    }

    /// Shows drivers the configuration space as it is now, and tells them if that is news.
    fn publish_config(&self, bytes: &[u8]) {
        let mut config = lock(&self.config);
        if *config.bytes != *bytes {
            config.bytes.copy_from_slice(bytes);
            config.generation = config.generation.wrapping_add(1);
            self.signals.interrupt(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    /// Device status and interrupt status.
    pub(super) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// There may be something to do in queue `index`, if the device has one: it is served soon. Never
    /// waits.
    pub(super) fn request(&self, index: usize) {
        let Some(queue) = self.queues.get(index) else { return };
        if !queue.requested.swap(true, Ordering::SeqCst) {
            self.io.wake();
        }
    }

    /// [`Service::request`] for all queues.
    pub(super) fn request_all(&self) {
        (0..self.queues.len()).for_each(|index| self.request(index));
    }

    /// The features are agreed.
    pub(super) fn activate(&self, features: u64) {
        lock(&self.device).activate(features);
    }

    /// Starts a queue with what the driver set up. Returns whether it can run so.
    pub(super) fn start_queue(&self, index: usize, setup: &QueueSetup, event_idx: bool) -> bool {
        self.queues
            .get(index)
            .is_some_and(|served| lock(&served.queue).start(setup, &served.ram, event_idx))
    }

    /// Stops a queue. Returns when no request of it is in flight: one that was is abandoned.
    pub(super) fn stop_queue(&self, index: usize) {
        let Some(served) = self.queues.get(index) else { return };
        served.cancel.request();
        let mut queue = lock(&served.queue);
        queue.stop();
        served.cancel.withdraw();
    }

    /// Resets the device. Returns when none of its requests is in flight: one that was is abandoned.
    pub(super) fn reset(&self) {
        self.queues.iter().for_each(|served| served.cancel.request());
        let mut device = lock(&self.device);
        device.reset();
        for served in &self.queues {
            lock(&served.queue).stop();
            served.cancel.withdraw();
        }
        self.signals.clear();
    }

    /// The driver broke the rules: everything stops until it resets the device.
    pub(super) fn fail(&self, fault: &DeviceFault) {
        tracing::warn!(
            device = self.device_id,
            error = fault as &dyn std::error::Error,
            "virtio device needs a reset"
        );
        self.signals.add_status(VIRTIO_CONFIG_S_NEEDS_RESET);
        if self.signals.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            self.signals.interrupt(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    /// Whether queues are served.
    fn is_live(&self) -> bool {
        let stopped = VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET;
        let status = self.signals.status();
        status & VIRTIO_CONFIG_S_DRIVER_OK != 0 && status & stopped == 0
    }

    /// Serves a queue for one turn.
    fn serve(&self, index: usize, served: &ServedQueue) {
        if served.cancel.requested() {
            // Who waits for the locks comes first.
            return;
        }
        let mut device = lock(&self.device);
        let mut queue = lock(&served.queue);
        // Under the locks that a reset takes.
        if !self.is_live() || !queue.is_ready() {
            return;
        }
        queue.begin_turn();
        match device.serve(index, &mut queue, &served.ram) {
            Ok(()) if queue.was_cut_short() => self.request(index),
            Ok(()) | Err(DeviceFault::Halted) => {}
            Err(fault) => self.fail(&fault),
        }
        self.publish_config(device.config());
        while let Some(next) = device.follow_up() {
            self.request(next);
        }
    }
}

impl IoWork for Service {
    fn events(&self) -> Vec<BorrowedFd<'_>> {
        if self.events.is_empty() || !self.is_live() {
            return Vec::new();
        }
        // While its queue is not served nobody takes what is there, and it would be readable for ever.
        let served = |queue: usize| {
            self.queues.get(queue).is_some_and(|served| lock(&served.queue).is_ready())
        };
        let watched = self.events.iter().filter(|(queue, _)| served(*queue));
        watched.map(|(_, events)| events.as_fd()).collect()
    }

    fn work(&self) {
        for (queue, events) in &self.events {
            if is_readable(events)
                && let Some(served) = self.queues.get(*queue)
            {
                served.requested.store(true, Ordering::SeqCst);
            }
        }
        for (index, served) in self.queues.iter().enumerate() {
            if served.requested.swap(false, Ordering::SeqCst) {
                self.serve(index, served);
            }
        }
    }
}

fn is_readable(file: &OwnedFd) -> bool {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&NOW)), Ok(1))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
