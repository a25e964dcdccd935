//! The tables that say where each grain is.
//!
//! A directory has the place of each table, in sectors, and a table that of each grain. An image that can be
//! written may have both twice; the first copy is the one that is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::header::{self, Header, TABLE};
use super::{SECTOR, VmdkError};

/// Bytes of an entry.
const ENTRY: u64 = 4;
/// Sectors of a table.
const TABLE_SECTORS: u64 = TABLE * ENTRY / SECTOR;
/// Entries that may wait to be written: of 1 GiB with usual grains.
const MAX_PENDING: usize = 1 << 14;

/// The tables of an image.
#[derive(Debug)]
pub(super) struct Tables {
    /// The places of the tables, 0 for one that is not there.
    directory: Vec<u32>,
    /// Those of their copies, in an image that is written.
    redundant: Option<Vec<u32>>,
    /// Entries of grains that are not yet in the file.
    pending: BTreeMap<u64, u32>,
}

impl Tables {
    /// Reads the directories of a file of `file_len` bytes. What lies in the file is in one place each, so that
    /// no write of a guest changes more than it should.
    pub(super) fn judge(
        file: &File,
        header: &Header,
        file_len: u64,
        writable: bool,
    ) -> Result<Self, VmdkError> {
        let mut judge = Judge {
            file,
            tables: header.tables(),
            end: if writable { header.first_grain } else { file_len / SECTOR },
            all_there: writable,
            taken: vec![0..1, header.descriptor.clone()],
        };
        let directory = judge.directory(header.directory)?;
        let redundant = header.redundant_directory.filter(|_| writable);
        let redundant = redundant.map(|at| judge.directory(at)).transpose()?;
        judge.finish()?;
        Ok(Self { directory, redundant, pending: BTreeMap::new() })
    }

    /// The entry of a grain of the disk.
    pub(super) fn entry(&self, file: &File, grain: u64) -> io::Result<u32> {
        if let Some(&entry) = self.pending.get(&grain) {
            return Ok(entry);
        }
        let Some(at) = place(&self.directory, grain) else { return Ok(0) };
        let mut entry = [0; 4];
        file.read_exact_at(&mut entry, at)?;
        Ok(u32::from_le_bytes(entry))
    }

    /// Says where a grain is; [`Tables::write`] tells the file.
    pub(super) fn set(&mut self, grain: u64, entry: u32) {
        self.pending.insert(grain, entry);
    }

    pub(super) fn is_written(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether so much is to be written that it should be.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= MAX_PENDING
    }

    /// Writes what has been set, whose grains the file has.
    pub(super) fn write(&mut self, file: &File) -> io::Result<()> {
        // Copies first: what is read is right at all times.
        for directory in self.redundant.iter().chain([&self.directory]) {
            let mut pending = self.pending.iter().peekable();
            while let Some((&first, &entry)) = pending.next() {
                let Some(at) = place(directory, first) else { continue };
                let mut bytes = entry.to_le_bytes().to_vec();
                let mut next = first + 1;
                while !next.is_multiple_of(TABLE)
                    && let Some((_, entry)) = pending.next_if(|&(&grain, _)| grain == next)
                {
                    bytes.extend(entry.to_le_bytes());
                    next += 1;
                }
                file.write_all_at(&bytes, at)?;
            }
        }
        self.pending.clear();
        Ok(())
    }
}

/// Where in the file a grain's entry is, if its table is there.
fn place(directory: &[u32], grain: u64) -> Option<u64> {
    let table = directory.get(usize::try_from(grain / TABLE).ok()?)?;
    (*table != 0).then(|| u64::from(*table) * SECTOR + grain % TABLE * ENTRY)
}

/// Judges what the directories say.
struct Judge<'a> {
    file: &'a File,
    /// How many tables there are.
    tables: u64,
    /// The sector before which all must lie.
    end: u64,
    /// A table must not be missing.
    all_there: bool,
    /// Sectors that are in use.
    taken: Vec<Range<u64>>,
}

impl Judge<'_> {
    const WRONG: VmdkError = VmdkError::Impossible("grain directory");

    fn directory(&mut self, start: u64) -> Result<Vec<u32>, VmdkError> {
        let len = self.tables * ENTRY;
        self.take(start, len.div_ceil(SECTOR))?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Self::WRONG)?];
        header::read(self.file, start * SECTOR, &mut bytes)?;
        let (entries, _) = bytes.as_chunks::<4>();
        let entries: Vec<u32> = entries.iter().map(|&entry| u32::from_le_bytes(entry)).collect();
        for &table in &entries {
            match table {
                0 if self.all_there => return Err(Self::WRONG),
                0 => {}
                table => self.take(table.into(), TABLE_SECTORS)?,
            }
        }
        Ok(entries)
    }

    fn take(&mut self, start: u64, len: u64) -> Result<(), VmdkError> {
        let end = start.checked_add(len).filter(|&end| end <= self.end).ok_or(Self::WRONG)?;
        self.taken.push(start..end);
        Ok(())
    }

    fn finish(mut self) -> Result<(), VmdkError> {
        self.taken.sort_unstable_by_key(|range| range.start);
        let overlap = self.taken.windows(2).any(|pair| pair[0].end > pair[1].start);
        if overlap { Err(Self::WRONG) } else { Ok(()) }
    }
}
