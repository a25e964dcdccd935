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

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_devices::Node;
use cloister_devices::virtio::VsockHost;
use cloister_virt::EpcPool;
use vm_memory::GuestMemoryMmap;

use self::board::Devices;
use self::source::Source;
use crate::accel::{AccelError, Accelerator, GuestSgx, HostSgx, Translators, VmConfig};
use crate::complaint::Setting;
use crate::config::MachineConfig;
use crate::cpuid::GuestCpuid;
use crate::disk::Disk;
use crate::layout::Layout;
use crate::memory::map_ram;
use crate::net::Network;
use crate::platform_dir;
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

/// A machine that is ready to boot.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    layout: Layout,
    ram: GuestMemoryMmap,
    source: Source,
    disks: Vec<Disk>,
    devices: Devices,
    sgx: Option<GuestSgx>,
    accelerator: Accelerator,
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
    /// Under KVM the EPC is the host's, which all its machines share, and `pool` has no meaning.
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
        let accelerator = Accelerator::choose(&config, &layout)?;
        let ram = map_ram(&layout)?;
        epc::check(&config.epc).map_err(MachineError::Epc)?;
        // Last of what may be refused: it may make something.
        let fuses = config.platform.as_deref().map(platform_dir::open).transpose();
        let fuses = fuses.map_err(MachineError::Platform)?;
        let sgx = match &accelerator {
            _ if config.epc.is_empty() => None,
            Accelerator::Kvm(host, _) if host.has_sgx() => {
                let sgx = HostSgx::open(host, &config, &layout).map_err(AccelError::Sgx)?;
                Some(GuestSgx::Host(Arc::new(sgx)))
            }
            // Under KVM too, where the host has no SGX: the enclaves run in software.
            _ => {
                let right = epc::provisioning(&config).map_err(MachineError::Provision)?;
                let pool = match shared {
                    Some(pool) => pool.clone(),
                    None => epc::own_epc(&config, fuses).map_err(MachineError::Epc)?,
                };
                let account = epc::account(&config, &pool).map_err(MachineError::EpcReserve)?;
                let capabilities = accelerator.enclaves_of(&config.cpu.capabilities);
                let vm = epc::virtual_epc(&config, capabilities, account, right, &layout);
                Some(GuestSgx::Soft(vm.map_err(MachineError::Epc)?))
            }
        };
        let devices = board::devices(&disks);
        Ok(Self { config, layout, ram, source, disks, devices, sgx, accelerator })
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
            let ended = self.boot(control, sandbox);
            // The process may end without what it holds, and the next boot reads what is there.
            self.disks.iter().for_each(Disk::write_back);
            let ended = ended.and_then(|(outcome, cause)| {
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
    pub const fn sgx(&self) -> Option<&GuestSgx> {
        self.sgx.as_ref()
    }

    /// What its devices are.
    pub fn devices(&self) -> impl Iterator<Item = &Node> {
        self.devices.list.nodes()
    }

    /// What executes its processors.
    #[must_use]
    pub const fn accelerator(&self) -> &Accelerator {
        &self.accelerator
    }

    /// The translators of its processors.
    #[must_use]
    pub fn translators(&self) -> Translators {
        self.accelerator.translators()
    }

    /// Bytes of the largest file that a disk can come to need.
    #[must_use]
    pub fn largest_disk(&self) -> u64 {
        self.disks.iter().map(Disk::largest_file).max().unwrap_or(0)
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
            accelerator: self.accelerator.clone(),
        }
    }
}
