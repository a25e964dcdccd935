//! The initial RAM disk.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use cloister_x86::PAGE_SIZE;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::{BootError, InitrdError};

/// An initial RAM disk, read into host memory.
#[derive(Debug)]
pub struct Initrd(Vec<u8>);

impl Initrd {
    /// Reads a file for a machine with `low_ram` bytes below the 32-bit hole.
    ///
    /// # Errors
    ///
    /// [`InitrdError`] when the file cannot be read, is empty, or is larger than `low_ram`.
    pub fn open(path: &Path, low_ram: u64) -> Result<Self, InitrdError> {
        let read = |reason| InitrdError::Read { path: path.to_owned(), reason };
        let metadata = fs::metadata(path).map_err(read)?;
        if !metadata.is_file() {
            return Err(InitrdError::NotAFile(path.to_owned()));
        }
        if metadata.len() > low_ram {
            return Err(InitrdError::DoesNotFit { size: metadata.len(), room: low_ram });
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(low_ram).read_to_end(&mut bytes))
            .map_err(read)?;
        if bytes.is_empty() {
            return Err(InitrdError::Empty(path.to_owned()));
        }
        Ok(Self(bytes))
    }

    /// An initial RAM disk of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Loads it as high as it goes in `room`, at a page boundary, and returns where it lies.
    pub(super) fn load(
        &self,
        ram: &GuestMemoryMmap,
        room: Range<u64>,
    ) -> Result<Range<u64>, BootError> {
        let size = self.0.len() as u64;
        let start = room
            .end
            .checked_sub(size)
            .map(|start| start & !(PAGE_SIZE - 1))
            .filter(|&start| start >= room.start)
            .ok_or(InitrdError::DoesNotFit {
                size,
                room: room.end.saturating_sub(room.start) & !(PAGE_SIZE - 1),
            })?;
        ram.write_slice(&self.0, GuestAddress(start))?;
        Ok(start..start + size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Remedy;
    use crate::memory::machine;

    #[test]
    fn it_lies_as_high_as_the_room_allows() {
        let (ram, _) = machine(4 << 20, &[]);
        let initrd = Initrd::from_bytes(vec![0xa5; 5000]);

        let place = initrd.load(&ram, 0x10_0000..0x40_0000).unwrap();

        assert_eq!(place, 0x3f_e000..0x3f_f388);
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x3f_f387)).unwrap(), 0xa5);
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x3f_f388)).unwrap(), 0);
    }

    #[test]
    fn without_room_the_message_says_how_much_there_is() {
        let (ram, _) = machine(4 << 20, &[]);
        let initrd = Initrd::from_bytes(vec![0; 0x3001]);

        for (start, end, space) in
            [(0x10_0000, 0x10_3000, 0x3000), (0x10_0000, 0x10_0000, 0), (0x20_0000, 0x10_0000, 0)]
        {
            let error = initrd.load(&ram, start..end).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the file has 12289 bytes and beside the kernel there is room for {space}")
            );
            assert_eq!(error.remedy(), Some(Remedy::MoreMemory));
        }
    }

    #[test]
    fn a_missing_file_and_a_device_are_named() {
        for (path, line) in [
            (
                "/nonexistent",
                "cannot read /nonexistent: No such file or directory (os error 2): name an \
                 initial RAM disk",
            ),
            ("/dev/null", "/dev/null is not a regular file: name an initial RAM disk"),
        ] {
            assert_eq!(Initrd::open(Path::new(path), 1 << 20).unwrap_err().to_string(), line);
        }
    }
}
