//! Loading a kernel into guest RAM and the processor state it is entered with.
//!
//! Kernels come from files of the host ([`KernelImage::open`], [`Initrd::open`]) or from what an
//! installed disk's boot loader would boot ([`find_on_disk`]). Both are read as bytes that somebody
//! hostile has written: bzImage and ELF headers, partition tables, ext4, FAT, GRUB's language,
//! entries of the Boot Loader Specification.
//!
//! # The seam
//!
//! The crate knows no machine. Its owner gives [`BootSource::load`] the guest's RAM, a [`MemoryMap`]
//! (where low RAM ends, and what the kernel is told of the address map) and the address of the ACPI
//! tables, and enters the [`EntryState`] that comes back on the bootstrap processor. Errors say what
//! is wrong and, in words or as a [`Remedy`], what to do; the owner names its own options.
//!
//! The first MiB is the crate's, from 500H to 0003_0000H, but for the code at the reset vector.

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

mod bzimage;
mod disk;
mod entry;
mod error;
mod image;
mod initrd;
mod memory;
mod narrow;
mod placement;
mod pvh;
mod reset_vector;
mod size;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use disk::{DiskBootError, ReadAt, find as find_on_disk};
pub use entry::EntryState;
pub use error::{BootError, CommandLineError, InitrdError, KernelError, Remedy};
pub use image::KernelImage;
pub use initrd::Initrd;
pub use memory::{MAX_MAP_ENTRIES, MapEntry, MemoryMap, RangeKind};
pub use size::format_size;

use vm_memory::GuestMemoryMmap;

/// Everything a boot loads.
#[derive(Debug)]
pub struct BootSource {
    /// The kernel.
    pub kernel: KernelImage,
    /// The initial RAM disk.
    pub initrd: Option<Initrd>,
    /// The kernel command line.
    pub cmdline: String,
}

impl BootSource {
    /// Loads kernel, initial RAM disk, command line and the structures of the kernel's boot
    /// protocol. `rsdp` is the guest-physical address of the ACPI root pointer. The caller enters
    /// the returned state on the bootstrap processor.
    ///
    /// # Errors
    ///
    /// [`BootError`] when a file is not what it should be, or does not fit in RAM.
    pub fn load(
        &self,
        ram: &GuestMemoryMmap,
        memory: &MemoryMap,
        rsdp: u64,
    ) -> Result<EntryState, BootError> {
        reset_vector::write(ram)?;
        match &self.kernel {
            KernelImage::BzImage(kernel) => bzimage::load(kernel, self, ram, memory, rsdp),
            KernelImage::Elf(kernel) => pvh::load(kernel, self, ram, memory, rsdp),
        }
    }
}
