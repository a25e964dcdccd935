//! The requests of virtio-blk (virtio 1.2, section 5.2.6).

use std::io;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::{Block, MAX_DISCARD_SECTORS, MAX_RANGES, MAX_ZERO_SECTORS, PUNCH, SECTOR, lock};
use crate::dma::GuestRam;
use crate::virtio::chain::{Chain, stop_if_halted};
use crate::virtio::device::DeviceFault;

/// Type, reserved, sector.
const HEADER: u64 = HEADER_LEN as u64;
const HEADER_LEN: usize = 16;
/// Sector, number of sectors, flags.
const RANGE: u64 = RANGE_LEN as u64;
const RANGE_LEN: usize = 16;

/// Why a request is not done. The guest learns it as the status.
enum Refusal {
    /// The guest asked for something that the disk does not do.
    Unsupported,
    /// The request is out of range, or the host failed.
    Failed,
    /// The queue itself is broken.
    Fault(DeviceFault),
}

impl From<DeviceFault> for Refusal {
    fn from(fault: DeviceFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        tracing::warn!(%error, "disk request fails on the host");
        Self::Failed
    }
}

/// A range of the disk, in bytes.
#[derive(Clone, Copy)]
struct Extent {
    offset: u64,
    len: u64,
}

/// What a request does to ranges of the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RangeWork {
    Discard,
    WriteZeroes,
}

impl RangeWork {
    fn max_sectors(self) -> u32 {
        match self {
            Self::Discard => MAX_DISCARD_SECTORS,
            Self::WriteZeroes => MAX_ZERO_SECTORS,
        }
    }
}

impl Block {
    /// Does one request, and returns how many bytes from the front of its writable part are
    /// written.
    pub(super) fn handle(&mut self, chain: &Chain, ram: &GuestRam) -> Result<u64, DeviceFault> {
        let short = DeviceFault::ShortRequest { head: chain.head() };
        // The last writable byte is the status.
        let Some(room) = chain.writable_len().checked_sub(1) else { return Err(short) };
        let mut header = [0; HEADER_LEN];
        if chain.read(ram, 0, &mut header)? < header.len() {
            return Err(short);
        }
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([a, b, c, d]);
        let sector = u64::from_le_bytes(sector);
        let (status, filled) = match self.carry_out(kind, sector, room, chain, ram) {
            Ok(filled) => (VIRTIO_BLK_S_OK, filled),
            Err(Refusal::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
            Err(Refusal::Failed) => (VIRTIO_BLK_S_IOERR, 0),
            Err(Refusal::Fault(fault)) => return Err(fault),
        };
        chain.write(ram, room, &status.to_le_bytes()[..1])?;
        Ok(if filled == room { room + 1 } else { filled })
    }

    /// Does what the header asks for. Returns how many bytes of the `room` before the status are
    /// filled.
    fn carry_out(
        &mut self,
        kind: u32,
        sector: u64,
        room: u64,
        chain: &Chain,
        ram: &GuestRam,
    ) -> Result<u64, Refusal> {
        match kind {
            VIRTIO_BLK_T_IN => {
                let extent = self.extent(sector, room)?;
                self.read(extent, chain, ram)?;
                Ok(room)
            }
            VIRTIO_BLK_T_OUT => {
                self.check_writable()?;
                let extent = self.extent(sector, chain.readable_len() - HEADER)?;
                self.write(extent, chain, ram)?;
                self.settle()?;
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH => {
                lock(&self.storage).flush()?;
                Ok(0)
            }
            VIRTIO_BLK_T_GET_ID => {
                let len =
                    usize::try_from(room).map_or(self.id.len(), |room| room.min(self.id.len()));
                Ok(chain.write(ram, 0, &self.id[..len])? as u64)
            }
            VIRTIO_BLK_T_DISCARD => self.for_each_range(chain, ram, RangeWork::Discard),
            VIRTIO_BLK_T_WRITE_ZEROES => self.for_each_range(chain, ram, RangeWork::WriteZeroes),
            _ => Err(Refusal::Unsupported),
        }
    }

    fn check_writable(&self) -> Result<(), Refusal> {
        if self.read_only { Err(Refusal::Failed) } else { Ok(()) }
    }

    /// Makes what was written last, unless the driver says when.
    fn settle(&self) -> Result<(), Refusal> {
        if !self.driver_flushes {
            lock(&self.storage).flush()?;
        }
        Ok(())
    }

    /// The range of whole sectors on the disk, if it is one.
    fn extent(&self, sector: u64, len: u64) -> Result<Extent, Refusal> {
        let inside = len.is_multiple_of(SECTOR)
            && sector.checked_add(len / SECTOR).is_some_and(|end| end <= self.sectors);
        // The product cannot overflow: a disk's bytes fit in 64 bits.
        if inside { Ok(Extent { offset: sector * SECTOR, len }) } else { Err(Refusal::Failed) }
    }

    fn read(&mut self, extent: Extent, chain: &Chain, ram: &GuestRam) -> Result<(), Refusal> {
        let mut done = 0;
        while done < extent.len {
            let piece = piece_of(&mut self.piece, extent.len - done);
            lock(&self.storage).read(extent.offset + done, piece)?;
            chain.write(ram, done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, extent: Extent, chain: &Chain, ram: &GuestRam) -> Result<(), Refusal> {
        let mut done = 0;
        while done < extent.len {
            let piece = piece_of(&mut self.piece, extent.len - done);
            chain.read(ram, HEADER + done, piece)?;
            lock(&self.storage).write(extent.offset + done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Reads the ranges of a discard or write-zeroes request, judges all, and then does each.
    fn for_each_range(
        &mut self,
        chain: &Chain,
        ram: &GuestRam,
        work: RangeWork,
    ) -> Result<u64, Refusal> {
        self.check_writable()?;
        let len = chain.readable_len() - HEADER;
        let count = len / RANGE;
        if !len.is_multiple_of(RANGE) || count == 0 || count > MAX_RANGES.into() {
            return Err(Refusal::Failed);
        }
        let mut ranges = Vec::with_capacity(count as usize);
        for index in 0..count {
            let mut bytes = [0; RANGE_LEN];
            chain.read(ram, HEADER + index * RANGE, &mut bytes)?;
            let [sector @ .., a, b, c, d, e, f, g, h] = bytes;
            let sectors = u32::from_le_bytes([a, b, c, d]);
            let flags = u32::from_le_bytes([e, f, g, h]);
            let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
            if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0
                || unmap && work == RangeWork::Discard
            {
                return Err(Refusal::Unsupported);
            }
            if sectors > work.max_sectors() {
                return Err(Refusal::Failed);
            }
            let extent = self.extent(u64::from_le_bytes(sector), u64::from(sectors) * SECTOR)?;
            if extent.len != 0 {
                ranges.push((extent, unmap));
            }
        }
        for (extent, unmap) in ranges {
            match work {
                RangeWork::Discard => self.discard(extent, ram)?,
                RangeWork::WriteZeroes => self.write_zeroes(extent, unmap, ram)?,
            }
        }
        self.settle()?;
        Ok(0)
    }

    /// A discard is advice: storage that cannot be thinned out stays as it is.
    fn discard(&self, extent: Extent, ram: &GuestRam) -> Result<(), Refusal> {
        let mut done = 0;
        while done < extent.len {
            stop_if_halted(ram)?;
            let len = (extent.len - done).min(PUNCH);
            match lock(&self.storage).discard(extent.offset + done, len) {
                Ok(()) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Unsupported => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Zeros, by the storage's quick way, or else byte by byte.
    fn write_zeroes(&mut self, extent: Extent, unmap: bool, ram: &GuestRam) -> Result<(), Refusal> {
        stop_if_halted(ram)?;
        let quick = lock(&self.storage).write_zeroes(extent.offset, extent.len, unmap);
        match quick {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error.into()),
        }
        self.piece.fill(0);
        let mut done = 0;
        while done < extent.len {
            stop_if_halted(ram)?;
            let piece = piece_of(&mut self.piece, extent.len - done);
            lock(&self.storage).write(extent.offset + done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }
}

/// The front of `piece`, no longer than `left`.
fn piece_of(piece: &mut [u8], left: u64) -> &mut [u8] {
    let len = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
    &mut piece[..len]
}
