//! A machine, from its configuration to its end.

mod console;
mod control;
mod epc;
mod event;
mod gate;
mod platform;
mod run;
mod source;

pub use control::{Control, Ended};
pub use epc::EpcError;
pub use event::{MachineEvent, RunState, ShutdownCause};
pub use run::RunError;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cloister_virt::{ProvisionError, SgxVm};
use thiserror::Error;
use vm_memory::GuestMemoryMmap;

use self::source::Source;
use crate::accel::VcpuError;
use crate::accel::soft::{SoftConfig, SoftVm};
use crate::boot::BootError;
use crate::config::{ConfigError, DiskConfig, MachineConfig};
use crate::cpuid::GuestCpuid;
use crate::devices::virtio::{Block, BlockError};
use crate::layout::Layout;
use crate::memory::{RamError, map_ram};
use crate::platform_dir::{self, PlatformDirError};
use crate::sandbox::Sandbox;

/// How a machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The guest powered off.
    PowerOff,
    /// The guest reset the machine, which was not to boot again.
    Reset,
    /// A triple fault, and the machine was not to boot again.
    TripleFault,
    /// [`Control::quit`] was called.
    Quit,
}

/// Why a machine cannot be put together. Each message names the option at fault.
#[derive(Debug, Error)]
pub enum MachineError {
    /// A value, or several together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A kernel or an initial RAM disk.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Guest RAM.
    #[error("--memory")]
    Ram(#[from] RamError),
    /// The directory of the SGX platform.
    #[error("--platform: {0}")]
    Platform(PlatformDirError),
    /// The right to the provisioning key.
    #[error("--cpu: +sgx-provisionkey: {0}, or leave the flag out")]
    Provision(ProvisionError),
    /// Virtual EPC.
    #[error("--sgx-epc: {0}")]
    Epc(EpcError),
    /// A disk image that cannot be opened.
    #[error("--disk: cannot open {path}: {reason}: name an image, {mend}", path = .path.display())]
    DiskOpen {
        /// The image.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
        /// How it may be meant.
        mend: &'static str,
    },
    /// A file that is no disk image.
    #[error("--disk: {path}: {reason}: name a raw image of at least 512 bytes", path = .path.display())]
    Disk {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        reason: BlockError,
    },
}

/// A disk image, opened when the machine is made so that its errors come before the guest starts.
#[derive(Debug)]
struct Disk {
    file: File,
    config: DiskConfig,
}

/// A machine that is ready to boot.
pub struct Machine {
    config: MachineConfig,
    layout: Layout,
    ram: GuestMemoryMmap,
    source: Source,
    disks: Vec<Disk>,
    sgx: Option<Arc<SgxVm>>,
}

impl Machine {
    /// Checks the configuration, opens its files and maps its RAM. Nothing of the guest runs.
    ///
    /// # Errors
    ///
    /// [`MachineError`] names the option that cannot be served.
    pub fn new(config: MachineConfig) -> Result<Self, MachineError> {
        let layout = config.layout()?;
        let files = Source::files(&config.boot, layout.low_ram_end())?;
        let disks = config.disks.iter().map(Disk::open).collect::<Result<Vec<_>, _>>()?;
        let source = match files {
            Some(source) => source,
            None => Source::disk(&disks, layout.low_ram_end())?,
        };
        let ram = map_ram(&layout)?;
        epc::check(&config.epc).map_err(MachineError::Epc)?;
        // Last of what may be refused: it may make something.
        let fuses = config.platform.as_deref().map(platform_dir::open).transpose();
        let fuses = fuses.map_err(MachineError::Platform)?;
        let right = epc::provisioning(&config).map_err(MachineError::Provision)?;
        let sgx = epc::virtual_epc(&config, fuses, right, &layout).map_err(MachineError::Epc)?;
        Ok(Self { config, layout, ram, source, disks, sgx })
    }

    /// Boots, and boots again after each reset, until the machine ends. `control` has its consoles
    /// and ends it; `sandbox` confines its threads.
    ///
    /// # Errors
    ///
    /// [`RunError`] when the kernel does not fit or the host fails the machine.
    pub fn run(&self, control: &Control, sandbox: &Sandbox) -> Result<Outcome, RunError> {
        loop {
            let ended = self.boot(control, sandbox).and_then(|(outcome, cause)| {
                let again = matches!(outcome, Outcome::Reset | Outcome::TripleFault);
                let again = again && !self.config.no_reboot;
                if again && let Some(sgx) = &self.sgx {
                    sgx.reset().map_err(RunError::Epc)?;
                }
                Ok((outcome, cause, again))
            });
            match ended {
                Ok((outcome, cause, true)) => {
                    tracing::info!(?outcome, "booting again");
                    control.was_reset(cause);
                }
                Ok((outcome, cause, false)) => {
                    control.has_ended(cause);
                    return Ok(outcome);
                }
                Err(error) => {
                    control.has_ended(ShutdownCause::HostError);
                    return Err(error);
                }
            }
        }
    }

    /// What the machine was made from.
    #[must_use]
    pub const fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// The guest's SGX, if it has any.
    #[must_use]
    pub const fn sgx(&self) -> Option<&Arc<SgxVm>> {
        self.sgx.as_ref()
    }

    /// What CPUID says in the guest.
    #[must_use]
    pub fn cpuid(&self) -> GuestCpuid {
        self.processors().cpuid()
    }

    fn accelerator(&self) -> Result<SoftVm, VcpuError> {
        SoftVm::new(&self.processors())
    }

    fn processors(&self) -> SoftConfig {
        SoftConfig { ram: self.ram.clone(), cpus: self.config.cpus, sgx: self.sgx.clone() }
    }
}

impl Disk {
    fn open(config: &DiskConfig) -> Result<Self, MachineError> {
        let path = || config.path.clone();
        let file =
            OpenOptions::new().read(true).write(!config.readonly).open(&config.path).map_err(
                |reason| {
                    let mend = match reason.kind() {
                        io::ErrorKind::PermissionDenied if !config.readonly => {
                            "or add ,readonly behind one that may not be written"
                        }
                        _ => "after which only ,readonly may follow",
                    };
                    MachineError::DiskOpen { path: path(), reason, mend }
                },
            )?;
        let disk = Self { file, config: config.clone() };
        // Only to find out whether it can be a disk; each boot makes its own.
        disk.device(0).map_err(|reason| MachineError::Disk { path: path(), reason })?;
        Ok(disk)
    }

    /// The device of the `index`-th disk.
    fn device(&self, index: usize) -> Result<Block, BlockError> {
        let file = self.file.try_clone().map_err(BlockError::Open)?;
        Block::from_file(file, self.config.readonly, &format!("cloister-{index}"))
    }
}
