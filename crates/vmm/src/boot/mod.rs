//! Loading a kernel into guest RAM and the processor state it is entered with.

mod bzimage;
mod disk;
mod entry;
mod error;
mod image;
mod initrd;
mod placement;
mod pvh;
mod reset_vector;

pub use disk::{DiskBootError, find as find_on_disk};
pub use entry::{EntryState, Segment};
pub use error::{BootError, CommandLineError, InitrdError, KernelError};
pub use image::KernelImage;
pub use initrd::Initrd;

use vm_memory::GuestMemoryMmap;

use crate::layout::Layout;

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
    /// [`BootError`] when a file is not what its option asks for, or does not fit in RAM.
    pub fn load(
        &self,
        ram: &GuestMemoryMmap,
        layout: &Layout,
        rsdp: u64,
    ) -> Result<EntryState, BootError> {
        reset_vector::write(ram)?;
        match &self.kernel {
            KernelImage::BzImage(kernel) => bzimage::load(kernel, self, ram, layout, rsdp),
            KernelImage::Elf(kernel) => pvh::load(kernel, self, ram, layout, rsdp),
        }
    }
}
