//! The image and its parts, read at offsets.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::narrow::in_memory;

/// Bytes that can be read at any offset, in any order, by several threads.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// There are not as many bytes, or the host cannot read them.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for File {
    // Does not move the position, which the disk's device shares.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// The image or a part of it. A clone reads the same bytes.
#[derive(Clone)]
pub(super) struct Region {
    image: Arc<dyn ReadAt>,
    start: u64,
    len: u64,
}

impl Region {
    /// The whole of an image of `len` bytes.
    pub(super) fn whole(image: Arc<dyn ReadAt>, len: u64) -> Self {
        Self { image, start: 0, len }
    }

    /// Its length in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The part of it that begins `start` bytes in; `None` if it is empty or not all inside.
    pub(super) fn part(&self, start: u64, len: u64) -> Option<Self> {
        let end = start.checked_add(len)?;
        (len > 0 && end <= self.len).then(|| Self {
            image: self.image.clone(),
            start: self.start + start,
            len,
        })
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// The bytes are not all inside, or the host cannot read them.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inside = offset.checked_add(buffer.len() as u64).is_some_and(|end| end <= self.len);
        if !inside {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.image.read_at(self.start + offset, buffer)
    }

    /// `N` bytes from `offset` on.
    pub(super) fn array<const N: usize>(&self, offset: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// A reader at its start.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { region: self.clone(), position: 0 }
    }
}

/// A region as a stream.
pub(super) struct Cursor {
    region: Region,
    position: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.region.len.saturating_sub(self.position);
        let len = buffer.len().min(in_memory(left));
        self.region.read_at(self.position.min(self.region.len), &mut buffer[..len])?;
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(by) => self.region.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
impl Region {
    /// An image in memory.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Self::whole(Arc::new(bytes), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_reads_its_own_bytes_and_none_beyond() {
        let image = Region::of((0..100).collect());

        let part = image.part(10, 20).unwrap();

        assert_eq!(part.array::<2>(18).unwrap(), [28, 29]);
        assert!(part.array::<2>(19).is_err());
        assert!(part.array::<1>(u64::MAX).is_err());
        assert!(image.part(90, 11).is_none());
        assert!(image.part(u64::MAX, 2).is_none());
        assert!(image.part(0, 0).is_none());
    }

    #[test]
    fn a_cursor_ends_with_its_region() {
        let mut cursor = Region::of(vec![7; 10]).part(2, 6).unwrap().cursor();
        let mut bytes = Vec::new();

        cursor.seek(SeekFrom::End(-2)).unwrap();
        cursor.read_to_end(&mut bytes).unwrap();
        cursor.seek(SeekFrom::Start(1 << 40)).unwrap();
        let beyond = cursor.read(&mut [0; 4]).unwrap();

        assert_eq!((bytes.len(), beyond), (2, 0));
    }
}
