//! A machine, from its configuration to its end.

mod board;
mod console;
mod control;
mod debug;
mod epc;
mod error;
mod event;
mod gate;
mod inventory;
mod run;
mod source;
mod supervise;

pub use control::{AskError, Control, Ended};
pub use epc::{EpcError, ReserveError, platform_epc};
pub use error::{MachineError, RunError};
pub use event::{MachineEvent, RunState, ShutdownCause};

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use cloister_devices::Node;
use cloister_devices::virtio::{Block, BlockError, VsockHost};
use cloister_virt::{EpcPool, SgxVm};
use vm_memory::GuestMemoryMmap;

use self::board::Devices;
use self::source::Source;
use crate::accel::{Translators, VmConfig};
use crate::complaint::Setting;
use crate::config::{DiskConfig, MachineConfig};
use crate::cpuid::GuestCpuid;
use crate::image_lock::LockError;
use crate::layout::Layout;
use crate::memory::map_ram;
use crate::net::Network;
use crate::platform_dir;
use crate::sandbox::Sandbox;
use crate::{image_format, image_lock};

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

/// A disk image, opened when the machine is made so that its errors come before the guest starts.
#[derive(Clone, Debug)]
struct Disk {
    file: Arc<File>,
    config: DiskConfig,
}

/// A machine that is ready to boot.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    layout: Layout,
    ram: GuestMemoryMmap,
    source: Source,
    disks: Vec<Disk>,
    devices: Devices,
    sgx: Option<Arc<SgxVm>>,
    translators: Translators,
}

impl Machine {
    /// Checks the configuration, opens its files and maps its RAM. Nothing of the guest runs.
    ///
    /// # Errors
    ///
    /// [`MachineError`].
    pub fn new(config: MachineConfig) -> Result<Self, MachineError> {
        Self::make(config, None)
    }

    /// As [`Machine::new`], on the EPC of a platform that machines share. The keys and the
    /// launch-control hash after reset are that platform's: `platform` of the configuration only says
    /// who has the right to the provisioning key, and `launch_key` has no meaning.
    ///
    /// # Errors
    ///
    /// [`MachineError`] names the option that cannot be served.
    pub fn on(pool: &Arc<EpcPool>, config: MachineConfig) -> Result<Self, MachineError> {
        Self::make(config, Some(pool))
    }

    fn make(config: MachineConfig, shared: Option<&Arc<EpcPool>>) -> Result<Self, MachineError> {
        let layout = config.layout()?;
        let files = Source::files(&config.boot, layout.low_ram_end())?;
        let disks = Disk::open_all(&config.disks)?;
        let source = match files {
            Some(source) => source,
            None => Source::disk(&disks, layout.low_ram_end())?,
        };
        let ram = map_ram(&layout)?;
        epc::check(&config.epc).map_err(MachineError::Epc)?;
        // Last of what may be refused: it may make something.
        let fuses = config.platform.as_deref().map(platform_dir::open).transpose();
        let fuses = fuses.map_err(MachineError::Platform)?;
        let mut sgx = None;
        if !config.epc.is_empty() {
            let right = epc::provisioning(&config).map_err(MachineError::Provision)?;
            let pool = match shared {
                Some(pool) => pool.clone(),
                None => epc::own_epc(&config, fuses).map_err(MachineError::Epc)?,
            };
            let account = epc::account(&config, &pool).map_err(MachineError::EpcReserve)?;
            let vm = epc::virtual_epc(&config, account, right, &layout);
            sgx = Some(vm.map_err(MachineError::Epc)?);
        }
        let translators = Translators::new(config.cpus, config.translate);
        let devices = board::devices(&disks);
        Ok(Self { config, layout, ram, source, disks, devices, sgx, translators })
    }

    /// Gives the guest a vsock device with this CID, whose streams lead to `host`.
    ///
    /// # Errors
    ///
    /// [`MachineError::TooManyDevices`].
    pub fn attach_vsock(&mut self, cid: u32, host: Arc<dyn VsockHost>) -> Result<(), MachineError> {
        self.check_slot(Setting::Vsock)?;
        self.devices.add_vsock(cid, host);
        Ok(())
    }

    /// Gives the guest a file system that it mounts by `tag`, which the other end of `server` serves.
    ///
    /// # Errors
    ///
    /// [`MachineError::TooManyDevices`].
    pub fn attach_file_system(
        &mut self,
        tag: String,
        server: Arc<OwnedFd>,
    ) -> Result<(), MachineError> {
        self.check_slot(Setting::Share)?;
        self.devices.add_file_system(tag, server);
        Ok(())
    }

    /// Gives the guest a network device on `network`.
    ///
    /// # Errors
    ///
    /// [`MachineError::TooManyDevices`].
    pub fn attach_network(&mut self, network: &Network) -> Result<(), MachineError> {
        self.check_slot(Setting::Network)?;
        self.devices.add_network(network);
        Ok(())
    }

    fn check_slot(&self, setting: Setting) -> Result<(), MachineError> {
        if self.devices.has_slot() { Ok(()) } else { Err(MachineError::TooManyDevices(setting)) }
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

    /// What its devices are.
    pub fn devices(&self) -> impl Iterator<Item = &Node> {
        self.devices.list.nodes()
    }

    /// The translators of its processors.
    #[must_use]
    pub const fn translators(&self) -> &Translators {
        &self.translators
    }

    /// Bytes of the largest disk.
    #[must_use]
    pub fn largest_disk(&self) -> u64 {
        let sizes = self.disks.iter().map(|disk| disk.file.metadata());
        sizes.flatten().map(|metadata| metadata.len()).max().unwrap_or(0)
    }

    /// What CPUID says in the guest.
    #[must_use]
    pub fn cpuid(&self) -> GuestCpuid {
        self.processors().cpuid()
    }

    fn processors(&self) -> VmConfig {
        VmConfig {
            vmx: self.config.cpu.vmx,
            ram: self.ram.clone(),
            cpus: self.config.cpus,
            sgx: self.sgx.clone(),
            translators: self.translators.clone(),
        }
    }
}

impl Disk {
    fn open(config: &DiskConfig) -> Result<Self, MachineError> {
        let path = || config.path.clone();
        let file =
            OpenOptions::new().read(true).write(!config.readonly).open(&config.path).map_err(
                |reason| MachineError::DiskOpen {
                    path: path(),
                    reason,
                    writable: !config.readonly,
                },
            )?;
        if let Some(format) = image_format::probe(&file) {
            return Err(MachineError::DiskFormat { path: path(), format });
        }
        let disk = Self { file: Arc::new(file), config: config.clone() };
        // Only to find out whether it can be a disk; each boot makes its own.
        disk.device(0).map_err(|reason| MachineError::Disk { path: path(), reason })?;
        Ok(disk)
    }

    /// Opens and locks all disks of a machine.
    fn open_all(configs: &[DiskConfig]) -> Result<Vec<Self>, MachineError> {
        let mut disks: Vec<Self> = Vec::new();
        for config in configs {
            let disk = Self::open(config)?;
            match image_lock::lock(&disk.file, config.readonly) {
                Ok(()) => {}
                Err(LockError::InUse) => return Err(disk.in_use(&disks)),
                Err(LockError::Unsupported(error)) => {
                    let path = config.path.display();
                    tracing::warn!(%path, %error, "the disk image cannot be locked");
                }
            }
            disks.push(disk);
        }
        Ok(disks)
    }

    /// Who has the image, of which the machine has opened `others`.
    fn in_use(&self, others: &[Self]) -> MachineError {
        let path = self.config.path.clone();
        let identity = |disk: &Self| disk.file.metadata().map(|file| (file.dev(), file.ino())).ok();
        if others.iter().any(|other| identity(other) == identity(self)) {
            return MachineError::DiskTwice(path);
        }
        MachineError::DiskInUse { path, readonly: self.config.readonly }
    }

    /// The device of the `index`-th disk.
    fn device(&self, index: usize) -> Result<Block, BlockError> {
        let id = format!("cloister-{index}");
        Block::from_file(self.file.clone(), self.config.readonly, &id)
    }

    /// The image's descriptor, the same as long as the machine is there.
    fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
