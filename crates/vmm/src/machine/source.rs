//! Where each boot gets its kernel from.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use super::{Disk, Machine};
use crate::boot::{
    BootError, BootSource, DiskBootError, EntryState, Initrd, KernelImage, find_on_disk,
};
use crate::config::BootConfig;

/// Where each boot gets its kernel from.
pub(super) enum Source {
    /// Files of the host, read once, so that a reset boots the same bytes again.
    Files(BootSource),
    /// The first disk. A reset reads it again, so that what the guest has changed counts; the
    /// first boot takes what the machine was made with.
    Disk(Mutex<Option<BootSource>>),
}

impl Source {
    /// Reads the host's files; `None` if the disk is to be booted.
    pub(super) fn files(boot: &BootConfig, low_ram: u64) -> Result<Option<Self>, BootError> {
        let BootConfig::Kernel { kernel, initrd, cmdline } = boot else { return Ok(None) };
        let kernel = KernelImage::open(kernel)?;
        let initrd = initrd.as_ref().map(|path| Initrd::open(path, low_ram)).transpose()?;
        Ok(Some(Self::Files(BootSource { kernel, initrd, cmdline: cmdline.clone() })))
    }

    /// Reads the first disk.
    pub(super) fn disk(disks: &[Disk], low_ram: u64) -> Result<Self, BootError> {
        Ok(Self::Disk(Mutex::new(Some(read(disks, low_ram)?))))
    }

    /// Loads what `machine` boots into its RAM.
    pub(super) fn load(&self, machine: &Machine, rsdp: u64) -> Result<EntryState, BootError> {
        match self {
            Self::Files(source) => source.load(&machine.ram, &machine.layout, rsdp),
            Self::Disk(first) => {
                let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                let source = match first {
                    Some(source) => source,
                    None => read(&machine.disks, machine.layout.low_ram_end())?,
                };
                let loaded = source.load(&machine.ram, &machine.layout, rsdp);
                // The options that these are of were not given.
                loaded.map_err(|error| match error {
                    BootError::Kernel(error) => no_room(&machine.disks, &error),
                    BootError::Initrd(error) => no_room(&machine.disks, &error),
                    BootError::CommandLine(error) => no_room(&machine.disks, &error),
                    other => other,
                })
            }
        }
    }
}

fn read(disks: &[Disk], low_ram: u64) -> Result<BootSource, BootError> {
    find_on_disk(&disks[0].file, low_ram).map_err(|reason| on_disk(disks, reason))
}

fn no_room(disks: &[Disk], reason: &dyn Display) -> BootError {
    on_disk(disks, DiskBootError::Load(reason.to_string()))
}

/// Names the disk. That there is one, the configuration was checked for.
fn on_disk(disks: &[Disk], reason: DiskBootError) -> BootError {
    BootError::Disk { path: disks[0].config.path.clone(), reason }
}
