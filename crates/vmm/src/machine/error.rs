//! Why a machine cannot be put together, or ended though it should have gone on.

use std::io;

use cloister_boot::{BootError, Remedy};
use thiserror::Error;

use super::epc::{EpcError, ReserveError};
use super::inventory::InventoryError;
use crate::accel::{AccelError, EpcResetError, VcpuError};
use crate::acpi::AcpiError;
use crate::complaint::{Complaint, Phrase, Setting};
use crate::config::ConfigError;
use crate::disk::DiskError;
use crate::layout::MAX_VIRTIO_SLOTS;
use crate::memory::RamError;
use crate::platform_dir::{PlatformDirError, ProvisionError};

/// Why a machine cannot be put together. [`MachineError::complaint`] says which setting is at fault and
/// what to do.
#[derive(Debug, Error)]
pub enum MachineError {
    /// A value, or several together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A kernel or an initial RAM disk.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Guest RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// What executes the processors.
    #[error("{0}")]
    Accelerator(AccelError),
    /// The directory of the SGX platform.
    #[error("{0}")]
    Platform(PlatformDirError),
    /// The right to the provisioning key.
    #[error("+sgx-provisionkey: {0}, or leave the flag out")]
    Provision(ProvisionError),
    /// Virtual EPC.
    #[error("{0}")]
    Epc(EpcError),
    /// The reservation of EPC.
    #[error("{0}")]
    EpcReserve(ReserveError),
    /// A disk image.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// More virtio devices than the board has room for.
    #[error(
        "the machine has room for {MAX_VIRTIO_SLOTS} virtio devices, of which it has two by itself"
    )]
    TooManyDevices(Setting),
}

impl MachineError {
    /// Which setting is at fault, why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        match self {
            Self::Config(error) => error.complaint(),
            Self::Boot(error) => boot_complaint(error),
            Self::Ram(error @ RamError::Map { .. }) => Complaint {
                fix: Some("write a smaller size".into()),
                ..Complaint::about(Setting::Memory, error)
            },
            // Their messages say what to do.
            Self::Ram(error) => Complaint::about(Setting::Memory, error),
            Self::Accelerator(error) => error.complaint(),
            Self::Platform(error) => Complaint::about(Setting::Platform, error),
            Self::Provision(_) => Complaint::about(Setting::Cpu, self),
            Self::Epc(error) => Complaint::about(Setting::Epc, error),
            Self::EpcReserve(error) => Complaint::about(Setting::EpcReserve, error),
            Self::Disk(error) => error.complaint(),
            Self::TooManyDevices(setting) => {
                Complaint::new(*setting, self.to_string(), "leave some out")
            }
        }
    }
}

// Not by `#[from]`, which makes a source: the message has it already.
impl From<AccelError> for MachineError {
    fn from(error: AccelError) -> Self {
        Self::Accelerator(error)
    }
}

/// Why a machine ended that should have gone on, or did not start. [`RunError::complaint`] says what
/// to do where something can be done.
#[derive(Debug, Error)]
pub enum RunError {
    /// The kernel, its initial RAM disk or its command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The devices.
    #[error(transparent)]
    Device(#[from] InventoryError),
    /// A processor.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The host has no thread for a processor.
    #[error("cannot start a thread for processor {cpu}")]
    Thread {
        /// Its APIC ID.
        cpu: u32,
        /// What the host said.
        source: io::Error,
    },
    /// The virtual EPC could not be made unused for the next boot.
    #[error("cannot reset the virtual EPC")]
    Epc(#[source] EpcResetError),
    /// A bug: the processor's thread panicked, and has said so.
    #[error("processor {0} failed unexpectedly")]
    Panicked(u32),
    /// The host has no thread, or no descriptor, for the devices.
    #[error("cannot start the I/O thread")]
    IoThread {
        /// What the host said.
        source: io::Error,
    },
    /// A bug: the I/O thread panicked, and has said so.
    #[error("the I/O thread failed unexpectedly")]
    IoPanicked,
    /// The host has no thread for the machine.
    #[error("cannot start a thread for the machine")]
    MachineThread {
        /// What the host said.
        source: io::Error,
    },
    /// A bug: the machine's thread panicked, and has said so.
    #[error("the machine failed unexpectedly")]
    Unexpected,
}

impl RunError {
    /// Which setting is at fault, if one is, why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        match self {
            Self::Boot(error) => boot_complaint(error),
            Self::Vcpu(error) => error.complaint(),
            other => Complaint::of_nothing_set(other),
        }
    }
}

/// The boot crate knows neither where its files come from nor who makes the RAM.
fn boot_complaint(error: &BootError) -> Complaint {
    let setting = match error {
        BootError::Kernel(_) => Setting::Kernel,
        BootError::Initrd(_) => Setting::Initrd,
        BootError::CommandLine(_) => Setting::CommandLine,
        BootError::Disk { .. } => Setting::Disk,
        BootError::Ram(_) => return Complaint::of_nothing_set(error),
    };
    let fix = error.remedy().map(|remedy| {
        let (words, setting) = match remedy {
            Remedy::MoreMemory => ("give the machine more ", Setting::Memory),
            Remedy::NameKernel => ("name a kernel with ", Setting::Kernel),
            Remedy::NameOne => ("name one with ", Setting::Kernel),
            Remedy::CheckOrNameOne => ("check them, or name one with ", Setting::Kernel),
        };
        Phrase::from(words).setting(setting).into()
    });
    Complaint { fix, ..Complaint::about(setting, error) }
}

#[cfg(test)]
mod tests {
    use cloister_boot::{DiskBootError, InitrdError, KernelError};

    use super::*;
    use crate::cli::RunWording;
    use crate::complaint::Wording as _;
    use crate::qemu::QemuWording;

    fn too_large_kernel() -> BootError {
        KernelError::DoesNotFit { start: 0x100_0000, end: 0x140_0000, ram: 19 << 20 }.into()
    }

    fn on_disk(reason: DiskBootError) -> BootError {
        BootError::Disk { path: "d".into(), reason }
    }

    #[test]
    fn what_stops_a_boot_names_the_setting_that_can_be_changed() {
        for (error, run, qemu) in [
            (
                too_large_kernel(),
                "--kernel: the kernel needs RAM from 0x1000000 to 0x1400000 and there is 19M: \
                 give the machine more --memory",
                "-kernel: the kernel needs RAM from 0x1000000 to 0x1400000 and there is 19M: \
                 give the machine more -m",
            ),
            (
                InitrdError::DoesNotFit { size: 12289, room: 1 }.into(),
                "--initrd: the file has 12289 bytes and beside the kernel there is room for 1: \
                 give the machine more --memory",
                "-initrd: the file has 12289 bytes and beside the kernel there is room for 1: \
                 give the machine more -m",
            ),
            (
                on_disk(DiskBootError::Load(too_large_kernel().into())),
                "--disk: d: what its boot loader would boot cannot be loaded: the kernel needs RAM \
                 from 0x1000000 to 0x1400000 and there is 19M: give the machine more --memory",
                "-drive: d: what its boot loader would boot cannot be loaded: the kernel needs RAM \
                 from 0x1000000 to 0x1400000 and there is 19M: give the machine more -m",
            ),
            (
                on_disk(DiskBootError::Unusable("a; b".into())),
                "--disk: d: no kernel can be booted from it: a; b: name one with --kernel",
                "-drive: d: no kernel can be booted from it: a; b: name one with -kernel",
            ),
            (
                on_disk(DiskBootError::Failed),
                "--disk: d: its file systems cannot be read: name a kernel with --kernel",
                "-drive: d: its file systems cannot be read: name a kernel with -kernel",
            ),
            (
                on_disk(DiskBootError::TooSlow(10)),
                "--disk: d: its file systems cannot be read within 10 s: \
                 check them, or name one with --kernel",
                "-drive: d: its file systems cannot be read within 10 s: \
                 check them, or name one with -kernel",
            ),
            (
                KernelError::Empty.into(),
                "--kernel: the file is empty: name a bzImage or an ELF kernel",
                "-kernel: the file is empty: name a bzImage or an ELF kernel",
            ),
        ] {
            let complaint = RunError::Boot(error).complaint();

            assert_eq!(RunWording.line(&complaint), run);
            assert_eq!(QemuWording.line(&complaint), qemu);
        }
    }

    #[test]
    fn what_no_setting_is_at_fault_for_says_all_that_led_to_it() {
        let source = io::Error::from(io::ErrorKind::OutOfMemory);
        let complaint = RunError::Thread { cpu: 3, source }.complaint();

        assert_eq!(
            RunWording.line(&complaint),
            "cannot start a thread for processor 3: out of memory"
        );
    }
}
