//! Where each boot gets its kernel from.

use std::sync::{Mutex, PoisonError};

use super::Machine;
use crate::config::{BootConfig, DEFAULT_CMDLINE, MAX_CMDLINE};
use crate::disk::Disk;
use crate::invocation::names_console;
use cloister_boot::{
    BootError, BootSource, DiskBootError, EntryState, Initrd, KernelImage, find_on_disk,
};

/// Where each boot gets its kernel from.
#[derive(Debug)]
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
            Self::Files(source) => source.load(&machine.ram, &machine.layout.memory_map(), rsdp),
            Self::Disk(first) => {
                let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                let source = match first {
                    Some(source) => source,
                    None => read(&machine.disks, machine.layout.low_ram_end())?,
                };
                let loaded = source.load(&machine.ram, &machine.layout.memory_map(), rsdp);
                // The disk is at fault for files that nobody named.
                loaded.map_err(|error| match error {
                    BootError::Kernel(_) | BootError::Initrd(_) | BootError::CommandLine(_) => {
                        on_disk(&machine.disks, DiskBootError::Load(error.into()))
                    }
                    other => other,
                })
            }
        }
    }
}

fn read(disks: &[Disk], low_ram: u64) -> Result<BootSource, BootError> {
    let found = find_on_disk(disks[0].reader(), disks[0].len(), low_ram);
    let mut source = found.map_err(|reason| on_disk(disks, reason))?;
    name_console(&mut source.cmdline);
    Ok(source)
}

/// Installed systems print to a screen unless their kernel is told of a console, and a machine has none.
fn name_console(cmdline: &mut String) {
    if names_console(cmdline) {
        return;
    }
    if cmdline.len() + DEFAULT_CMDLINE.len() < MAX_CMDLINE {
        tracing::info!("the disk's kernel line names no console: it gets {DEFAULT_CMDLINE}");
        *cmdline = format!("{cmdline} {DEFAULT_CMDLINE}").trim_start().to_owned();
    } else {
        tracing::warn!("the disk's kernel line names no console, and has no room for one");
    }
}

/// Names the disk. That there is one, the configuration was checked for.
fn on_disk(disks: &[Disk], reason: DiskBootError) -> BootError {
    BootError::Disk { path: disks[0].config.path.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_line_of_a_disk_names_a_console_in_the_end() {
        let long = "x".repeat(MAX_CMDLINE - 5);
        for (line, expected) in [
            ("root=/dev/vda1 ro quiet", "root=/dev/vda1 ro quiet console=ttyS0"),
            ("", "console=ttyS0"),
            ("console=hvc0 ro", "console=hvc0 ro"),
            ("ro earlyprintk=ttyS0", "ro earlyprintk=ttyS0"),
            ("noconsole=1", "noconsole=1 console=ttyS0"),
            (&long, &long),
        ] {
            let mut cmdline = line.to_owned();

            name_console(&mut cmdline);

            assert_eq!(cmdline, expected);
        }
    }
}
