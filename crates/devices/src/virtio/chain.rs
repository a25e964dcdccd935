//! Descriptor chains, judged once and then walked without a doubt.

use virtio_queue::DescriptorChain;
use vm_memory::GuestMemoryMmap;

use super::device::DeviceFault;
use crate::dma::GuestRam;

#[derive(Debug, Clone, Copy)]
struct Buffer {
    gpa: u64,
    len: u32,
}

/// The buffers of one request. The descriptors were copied once: what the driver does to them
/// later changes nothing here.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    /// Those to read first, then those to write.
    buffers: Vec<Buffer>,
    readable: usize,
    done: u64,
}

impl Chain {
    /// Copies the descriptors of `chain` and judges them: at most `limit` of them, an end, those
    /// to read before those to write, all in RAM.
    pub(super) fn collect(
        chain: DescriptorChain<&GuestMemoryMmap>,
        limit: u16,
        ram: &GuestRam,
    ) -> Result<Self, DeviceFault> {
        let head = chain.head_index();
        let mut buffers = Vec::new();
        let mut readable = 0;
        // virtio-queue's iterator ends the same way at the end of a chain and at a descriptor
        // that cannot be had. Only in the second case the last one has a successor.
        let mut complete = false;
        for descriptor in chain {
            if buffers.len() == usize::from(limit) {
                return Err(DeviceFault::BrokenChain { head });
            }
            let buffer = Buffer { gpa: descriptor.addr().0, len: descriptor.len() };
            if !ram.contains(buffer.gpa, buffer.len.into()) {
                return Err(DeviceFault::BufferOutsideRam { head });
            }
            if !descriptor.is_write_only() {
                if readable != buffers.len() {
                    return Err(DeviceFault::MixedChain { head });
                }
                readable += 1;
            }
            buffers.push(buffer);
            complete = !descriptor.has_next();
        }
        if !complete {
            return Err(DeviceFault::BrokenChain { head });
        }
        Ok(Self { head, buffers, readable, done: 0 })
    }

    /// Index of the first descriptor: the request's name in the used ring.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes that the device had dealt with when it put the chain back; 0 for a chain that it never had.
    pub fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn done_until(self, done: u64) -> Self {
        Self { done, ..self }
    }

    /// Bytes that the device may read.
    pub fn readable_len(&self) -> u64 {
        total(&self.buffers[..self.readable])
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> u64 {
        total(&self.buffers[self.readable..])
    }

    /// Reads from `offset` of the readable bytes. Returns how many there were: as many as `data`
    /// takes, or fewer at the end.
    ///
    /// # Errors
    /// Guest memory cannot be reached, or the device is to stop.
    pub fn read(&self, ram: &GuestRam, offset: u64, data: &mut [u8]) -> Result<usize, DeviceFault> {
        stop_if_halted(ram)?;
        let mut done = 0;
        for (gpa, len) in pieces(&self.buffers[..self.readable], offset, data.len()) {
            ram.read(gpa, &mut data[done..done + len])?;
            done += len;
        }
        Ok(done)
    }

    /// Writes at `offset` of the writable bytes. Returns how many fitted.
    ///
    /// # Errors
    /// Guest memory cannot be reached, or the device is to stop.
    pub fn write(&self, ram: &GuestRam, offset: u64, data: &[u8]) -> Result<usize, DeviceFault> {
        stop_if_halted(ram)?;
        let mut done = 0;
        for (gpa, len) in pieces(&self.buffers[self.readable..], offset, data.len()) {
            ram.write(gpa, &data[done..done + len])?;
            done += len;
        }
        Ok(done)
    }
}

/// Looked at before each piece of a request: a chain may be of terabytes.
pub(super) fn stop_if_halted(ram: &GuestRam) -> Result<(), DeviceFault> {
    if ram.is_halted() { Err(DeviceFault::Halted) } else { Ok(()) }
}

fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| u64::from(buffer.len)).sum()
}

/// The guest-physical pieces of `len` bytes from `offset` of `buffers` laid end to end.
fn pieces(
    buffers: &[Buffer],
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (u64, usize)> + use<'_> {
    let mut skip = offset;
    let mut left = len;
    buffers.iter().filter_map(move |buffer| {
        let start = skip.min(buffer.len.into());
        skip -= start;
        let rest = usize::try_from(u64::from(buffer.len) - start).unwrap_or(usize::MAX);
        let take = left.min(rest);
        left -= take;
        (take != 0).then_some((buffer.gpa + start, take))
    })
}
