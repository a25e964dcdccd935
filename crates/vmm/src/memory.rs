//! Guest RAM.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use vm_memory::mmap::FromRangesError;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use crate::layout::Layout;
use crate::size::format_size;

/// The file's name in `/proc/PID/maps`, after `memfd:`.
const NAME: &str = "cloister-ram";

/// Why there is no RAM for the guest.
#[derive(Debug, Error)]
pub enum RamError {
    /// The host gives no file in memory.
    #[error(
        "the host makes no file in memory (memfd_create(2)): {0}: raise the limit of open files \
         (ulimit -n), or run where the call is allowed"
    )]
    File(io::Error),
    /// The process may have no file of that size.
    #[error(
        "{} of RAM are more than the {} that a file may have here: raise the limit (ulimit -f) or \
         write a smaller size",
        format_size(*.size),
        format_size(*.limit)
    )]
    Limit {
        /// Bytes asked for.
        size: u64,
        /// Bytes that the process may ask for.
        limit: u64,
    },
    /// The host has no address space or memory for it.
    #[error("the host cannot map {} of RAM", format_size(*.size))]
    Map {
        /// Bytes asked for.
        size: u64,
        /// What the host said.
        source: FromRangesError,
    },
}

/// Maps the RAM of `layout`: one file in memory (memfd_create(2)), shared, which the host backs when
/// the guest touches it and counts as memory from then on. Its regions follow each other in the file
/// without the holes between them.
///
/// The file's size is sealed, so that no access to what is mapped can fail (SIGBUS). It stays open as
/// [`FileOffset`] of the regions: another process that is handed it sees the same RAM.
///
/// # Errors
///
/// [`RamError`] when the host refuses the file or the mapping.
pub fn map_ram(layout: &Layout) -> Result<GuestMemoryMmap, RamError> {
    let ranges = layout.ram();
    let size = ranges.iter().map(|range| range.end - range.start).sum();
    let file = Arc::new(memory_file(size)?);
    let mut offset = 0;
    let regions: Vec<_> = ranges
        .into_iter()
        .map(|Range { start, end }| {
            let at = FileOffset::from_arc(file.clone(), offset);
            offset += end - start;
            let size = usize::try_from(end - start).unwrap_or(usize::MAX);
            (GuestAddress(start), size, Some(at))
        })
        .collect();
    GuestMemoryMmap::from_ranges_with_files(&regions)
        .map_err(|source| RamError::Map { size, source })
}

/// A file in memory that has `size` bytes for good.
fn memory_file(size: u64) -> Result<File, RamError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3. A later one may be set up to refuse files without it.
        Err(Errno::INVAL) => memfd_create(NAME, flags),
        made => made,
    };
    let failed = |error: Errno| RamError::File(error.into());
    let file = File::from(made.map_err(failed)?);
    set_size(&file, size)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(failed)?;
    Ok(file)
}

/// Gives the file its size, whatever part of its limit the process has given up: what is limited are
/// files on disks, of which this is none.
fn set_size(file: &File, size: u64) -> Result<(), RamError> {
    let before = getrlimit(Resource::Fsize);
    let limit = before.maximum.unwrap_or(u64::MAX);
    // Not tried: beyond the limit the process gets a SIGXFSZ.
    if size > limit {
        return Err(RamError::Limit { size, limit });
    }
    let lifted = before.current.is_some_and(|current| current < size);
    let failed = |error: Errno| RamError::File(error.into());
    if lifted {
        setrlimit(Resource::Fsize, Rlimit { current: Some(size), ..before }).map_err(failed)?;
    }
    let sized = file.set_len(size).map_err(RamError::File);
    if lifted {
        setrlimit(Resource::Fsize, before).map_err(failed)?;
    }
    sized
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use rustix::fs::fcntl_get_seals;
    use vm_memory::{Bytes as _, GuestMemoryBackend, GuestMemoryRegion as _};

    use super::*;

    fn four_gib() -> GuestMemoryMmap {
        map_ram(&Layout::new(4 << 30, &[64 << 20]).unwrap()).unwrap()
    }

    fn file(ram: &GuestMemoryMmap) -> &File {
        ram.iter().next().unwrap().file_offset().unwrap().file()
    }

    #[test]
    fn ram_is_mapped_where_the_layout_says_and_nowhere_else() {
        let ram = four_gib();

        for (address, is_ram) in [
            (0, true),
            (0xbfff_ffff, true),
            (0xc000_0000, false),
            (0xffff_ffff, false),
            (0x1_0000_0000, true),
            (0x1_3fff_ffff, true),
            (0x1_4000_0000, false),
        ] {
            assert_eq!(ram.address_in_range(GuestAddress(address)), is_ram, "{address:#x}");
        }
    }

    #[test]
    fn ram_is_one_file_that_shows_what_is_in_it() {
        let ram = four_gib();

        let inodes: Vec<_> = ram
            .iter()
            .map(|region| region.file_offset().unwrap().file().metadata().unwrap().ino())
            .collect();
        assert_eq!(inodes, [inodes[0]; 2]);
        for (gpa, offset) in [(0_u64, 0), (0xbfff_fff8, 0xbfff_fff8), (0x1_0000_0000, 0xc000_0000)]
        {
            ram.write_obj(gpa + 1, GuestAddress(gpa)).unwrap();
            let mut bytes = [0; 8];
            file(&ram).read_exact_at(&mut bytes, offset).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), gpa + 1);
        }
    }

    #[test]
    fn ram_takes_memory_only_where_it_is_touched() {
        let ram = four_gib();
        let before = file(&ram).metadata().unwrap().blocks();

        ram.write_obj(1_u8, GuestAddress(0x1_0000_0000)).unwrap();

        let kept = (file(&ram).metadata().unwrap().blocks() - before) * 512;
        // A page, or a large one where the host has these for all files in memory.
        assert_eq!(before, 0);
        assert!((4 << 10..=2 << 20).contains(&kept), "{kept}");
    }

    #[test]
    fn nobody_changes_the_size_of_ram() {
        let ram = four_gib();

        for size in [0, (4 << 30) - 4096, (4 << 30) + 4096] {
            assert!(file(&ram).set_len(size).is_err(), "{size}");
        }
        let seals = fcntl_get_seals(file(&ram)).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        assert_eq!(file(&ram).metadata().unwrap().len(), 4 << 30);
    }
}
