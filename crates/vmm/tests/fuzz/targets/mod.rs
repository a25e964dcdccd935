//! The bodies of the fuzz targets in `fuzz/`, each a function of the fuzzer's bytes that panics
//! when something is wrong. The ordinary tests run them with bytes from a fixed seed.

mod disk;
mod guest;
mod image;
mod kernel;
mod qcow2;
mod qemu_line;
mod virtio;
mod vmdk;

pub(crate) use disk::{boot_entries, disk, grub};
pub(crate) use kernel::kernel;
pub(crate) use qcow2::qcow2;
pub(crate) use qemu_line::qemu_line;
pub(crate) use virtio::virtio;
pub(crate) use vmdk::vmdk;

use std::fs::File;

use rustix::fs::{MemfdFlags, memfd_create};

/// Takes decisions from the fuzzer's bytes; zeros follow them.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A file in memory.
fn file(name: &str) -> File {
    File::from(memfd_create(name, MemfdFlags::CLOEXEC).expect("memfd_create"))
}
