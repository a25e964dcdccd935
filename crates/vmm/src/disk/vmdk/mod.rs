//! VMware's VMDK in one file ("Virtual Disk Format 5.0", VMware): `monolithicSparse`, read and written, and
//! `streamOptimized`, whose grains are compressed, read.
//!
//! A disk is divided into grains. One that was never written reads as zeros; the first write to it makes it at the
//! file's end, and later ones change it in place. The tables learn of new grains when the guest flushes, after
//! the grains themselves, so that no table names what is not there.

mod descriptor;
mod error;
mod header;
mod imago_storage;
mod tables;

pub use error::VmdkError;
pub(super) use imago_storage::VmdkStorage;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use cloister_devices::virtio::{BlockStorage, RawFile};
use miniz_oxide::inflate::decompress_slice_iter_to_slice;
use rustix::rand::{GetRandomFlags, getrandom};

use self::header::Header;
use self::tables::Tables;

/// Bytes of a sector, the unit of the format.
const SECTOR: u64 = 512;
/// An entry for a grain of zeros.
const ZERO_GRAIN: u32 = 1;
/// The version whose changes to the disk another part of the file keeps account of.
const TRACKED: u32 = 3;

/// An open image.
#[derive(Debug)]
pub struct Vmdk {
    file: Arc<File>,
    /// The same file, for holes in it.
    holes: RawFile,
    header: Header,
    tables: Tables,
    /// Of an image that is written.
    writer: Option<Writer>,
    /// The compressed grain that was read last.
    inflated: Option<(u64, Vec<u8>)>,
}

/// What writing an image needs.
#[derive(Debug)]
struct Writer {
    /// Where the next grain is made, in bytes.
    end: u64,
    largest_file: u64,
    /// The contents' new ID and its place, until the first write: images that are based on this one know by
    /// it that they no longer are.
    cid: Option<(u64, String)>,
}

/// Where a grain is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nowhere: it is zeros.
    Zeros,
    /// At this byte of the file.
    At(u64),
}

impl Vmdk {
    /// Opens the image in `file`.
    ///
    /// # Errors
    ///
    /// [`VmdkError`].
    pub(super) fn open(file: File, writable: bool) -> Result<Self, VmdkError> {
        let file_len = file.metadata().map_err(VmdkError::Read)?.len();
        let header = Header::judge(&file, file_len)?;
        let cid = descriptor::judge_embedded(&header.text(&file)?)?;
        if writable && header.is_compressed {
            return Err(VmdkError::ReadOnly("compressed (streamOptimized)"));
        }
        if writable && header.version == TRACKED {
            return Err(VmdkError::ReadOnly("of version 3"));
        }
        let tables = Tables::judge(&file, &header, file_len, writable)?;
        let cid = cid.map(|at| header.descriptor.start * SECTOR + at as u64);
        let writer = writable.then(|| Writer::new(&header, file_len, cid)).transpose()?;
        let file = Arc::new(file);
        let holes =
            RawFile::new(file.clone()).map_err(|error| VmdkError::Read(io::Error::other(error)))?;
        Ok(Self { file, holes, header, tables, writer, inflated: None })
    }

    /// How large the file may become when all of the disk is written.
    pub(super) fn largest_file(&self) -> u64 {
        self.writer.as_ref().map_or_else(|| self.holes.len(), |writer| writer.largest_file)
    }

    /// Tells the file where the grains are that it got.
    pub(super) fn write_back(&mut self) -> io::Result<()> {
        if self.tables.is_written() {
            return Ok(());
        }
        // The grains last before a table names them, whatever happens to the host.
        self.file.sync_data()?;
        self.tables.write(&self.file)
    }

    fn find(&self, grain: u64) -> io::Result<Place> {
        let entry = match self.tables.entry(&self.file, grain)? {
            0 => return Ok(Place::Zeros),
            ZERO_GRAIN if self.header.has_zero_grains => return Ok(Place::Zeros),
            entry => u64::from(entry) * SECTOR,
        };
        let is_possible = match &self.writer {
            // Not among the tables, which the guest would write.
            Some(writer) => {
                entry / SECTOR >= self.header.first_grain && entry + self.header.grain <= writer.end
            }
            None => entry < self.holes.len(),
        };
        if is_possible {
            Ok(Place::At(entry))
        } else {
            Err(damaged("a grain lies out of the image"))
        }
    }

    /// Reads a compressed grain.
    fn inflate(&mut self, grain: u64, at: u64) -> io::Result<&[u8]> {
        let (last, mut data) = self.inflated.take().unwrap_or_default();
        if last != grain || data.is_empty() {
            // Its first sector, which the table tells already, and the bytes of the compressed data.
            let mut marker = [0; 12];
            self.file.read_exact_at(&mut marker, at)?;
            let len = u32::from_le_bytes([marker[8], marker[9], marker[10], marker[11]]);
            if len == 0 || u64::from(len) > 2 * self.header.grain {
                return Err(damaged("a compressed grain has an impossible length"));
            }
            let mut packed = vec![0; len as usize];
            self.file.read_exact_at(&mut packed, at + marker.len() as u64)?;
            data.resize(in_memory(self.header.grain), 0);
            let inflated = decompress_slice_iter_to_slice(
                &mut data,
                [packed.as_slice()].into_iter(),
                true,
                false,
            );
            let inflated = inflated.map_err(|_| damaged("a compressed grain is damaged"))?;
            // Of the last grain, what is on the disk is enough.
            let on_disk = self.header.size - grain * self.header.grain;
            if (inflated as u64) < on_disk.min(self.header.grain) {
                return Err(damaged("a compressed grain is too short"));
            }
        }
        let (_, data) = self.inflated.insert((grain, data));
        Ok(data)
    }

    /// Makes a grain with `data` from its byte `within` on, and zeros besides.
    fn allocate(&mut self, grain: u64, within: u64, data: &[u8]) -> io::Result<()> {
        let writer = self.writer.as_mut().ok_or(io::ErrorKind::PermissionDenied)?;
        let start = writer.end;
        let entry = u32::try_from(start / SECTOR).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start + self.header.grain;
        self.file.set_len(end)?;
        if let Err(error) = self.file.write_all_at(data, start + within) {
            // What is there of it must not be in the grain that the next attempt makes.
            self.file.set_len(start)?;
            return Err(error);
        }
        writer.end = end;
        self.tables.set(grain, entry);
        if self.tables.is_full() { self.write_back() } else { Ok(()) }
    }

    /// The image's writer, who has changed the contents' ID.
    fn begin_change(&mut self) -> io::Result<()> {
        let writer = self.writer.as_mut().ok_or(io::ErrorKind::PermissionDenied)?;
        if let Some((at, digits)) = &writer.cid {
            self.file.write_all_at(digits.as_bytes(), *at)?;
            writer.cid = None;
        }
        Ok(())
    }

    /// Calls `work` with each part of the file that a range of the disk is kept in.
    fn for_each_place(
        &mut self,
        offset: u64,
        len: u64,
        work: impl Fn(&mut RawFile, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        // Grains that follow each other on the disk often do in the file.
        let mut run = 0..0;
        for part in parts(self.header.grain, offset, len) {
            let Place::At(at) = self.find(part.grain)? else { continue };
            let start = at + part.within;
            if start != run.end && !run.is_empty() {
                work(&mut self.holes, run.start, run.end - run.start)?;
            }
            if start != run.end {
                run.start = start;
            }
            run.end = start + part.len;
        }
        if run.is_empty() { Ok(()) } else { work(&mut self.holes, run.start, run.end - run.start) }
    }
}

impl Writer {
    fn new(header: &Header, file_len: u64, cid: Option<u64>) -> Result<Self, VmdkError> {
        let grain = header.grain;
        let aligned = |len: u64| len.checked_next_multiple_of(grain);
        // The last grain of a file may be cut short, and need not begin at a multiple of its size.
        let cut = if file_len.is_multiple_of(grain) { 0 } else { grain };
        let end = aligned(file_len).and_then(|end| end.checked_add(cut));
        let largest_file = end.and_then(|end| end.checked_add(aligned(header.size)?));
        let (Some(end), Some(largest_file)) = (end, largest_file) else {
            return Err(VmdkError::Impossible("length"));
        };
        let mut number = [0; 4];
        getrandom(&mut number, GetRandomFlags::empty())
            .map_err(|error| VmdkError::Read(error.into()))?;
        // The greatest numbers mean that there is no parent.
        let number = u32::from_ne_bytes(number) >> 1;
        let cid = cid.map(|at| (at, format!("{number:0width$x}", width = descriptor::CID_LEN)));
        Ok(Self { end, largest_file, cid })
    }
}

impl BlockStorage for Vmdk {
    fn len(&self) -> u64 {
        self.header.size
    }

    fn discard_alignment(&self) -> u32 {
        self.holes.discard_alignment()
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut rest = data;
        for part in parts(self.header.grain, offset, rest.len() as u64) {
            let (data, after) = rest.split_at_mut(in_memory(part.len));
            rest = after;
            match self.find(part.grain)? {
                Place::Zeros => data.fill(0),
                Place::At(at) if self.header.is_compressed => {
                    let within = in_memory(part.within);
                    let grain = self.inflate(part.grain, at)?;
                    data.copy_from_slice(&grain[within..within + data.len()]);
                }
                Place::At(at) => read_padded(&self.file, at + part.within, data)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.begin_change()?;
        let mut rest = data;
        for part in parts(self.header.grain, offset, rest.len() as u64) {
            let (data, after) = rest.split_at(in_memory(part.len));
            rest = after;
            match self.find(part.grain)? {
                Place::Zeros => self.allocate(part.grain, part.within, data)?,
                Place::At(at) => self.file.write_all_at(data, at + part.within)?,
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_back()?;
        self.file.sync_data()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.begin_change()?;
        self.for_each_place(offset, len, RawFile::discard)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.begin_change()?;
        self.for_each_place(offset, len, |file, offset, len| file.write_zeroes(offset, len, unmap))
    }
}

/// A part of a range, in one grain.
struct Part {
    grain: u64,
    /// Where in the grain it begins.
    within: u64,
    len: u64,
}

/// The parts of a range of the disk.
fn parts(grain: u64, mut offset: u64, mut len: u64) -> impl Iterator<Item = Part> {
    std::iter::from_fn(move || {
        let within = offset % grain;
        let part = Part { grain: offset / grain, within, len: len.min(grain - within) };
        offset += part.len;
        len -= part.len;
        (part.len != 0).then_some(part)
    })
}

/// A length of a grain's at most.
fn in_memory(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Reads what is there; the file goes on with zeros.
fn read_padded(file: &File, mut offset: u64, mut data: &mut [u8]) -> io::Result<()> {
    while !data.is_empty() {
        match file.read_at(data, offset) {
            Ok(0) => {
                data.fill(0);
                break;
            }
            Ok(read) => {
                data = &mut data[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the image is damaged: {what}"))
}

#[cfg(test)]
mod tests;
