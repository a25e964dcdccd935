//! What a machine is made of, checked as a whole.

use std::path::PathBuf;

use thiserror::Error;

use crate::accel::Choice;
use crate::complaint::{Complaint, Fix, Phrase, Setting};
use crate::cpu_flags::CpuConfig;
use crate::disk::ImageFormat;
use crate::layout::{Layout, LayoutError};
use crate::nodes::{self, NodeConfig, NodeError};
use crate::platform_dir::unhex;
use crate::size::format_size;

/// The maximum number of processors: what 8-bit APIC IDs and this MADT can name.
pub const MAX_CPUS: u32 = 64;
/// RAM of a machine that is given no size, in bytes.
pub const DEFAULT_RAM: u64 = 512 << 20;
/// Kernel command line of a machine that is given none: the serial port is the console.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0";
/// Longest kernel command line that Linux takes on x86 (COMMAND_LINE_SIZE, less its NUL).
pub const MAX_CMDLINE: usize = 2047;
/// The maximum number of disks: each takes a virtio-mmio slot and an IOAPIC pin.
pub const MAX_DISKS: usize = 8;

/// A disk image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskConfig {
    /// The image file.
    pub path: PathBuf,
    /// The guest cannot write to it, and the file is opened for reading only.
    pub readonly: bool,
    /// The format, if it is not to be told by the image's first bytes.
    pub format: Option<ImageFormat>,
    /// What the guest writes goes to a file that ends with the machine; the image is opened for reading only.
    pub snapshot: bool,
    /// What the image is based on, then what that is based on, and so on.
    pub backing: Vec<BackingConfig>,
}

/// The backing file of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackingConfig {
    /// The file.
    pub path: PathBuf,
    /// The format, if the image that is based on it does not say it.
    pub format: Option<ImageFormat>,
}

impl DiskConfig {
    /// A disk that the guest reads and writes, in an image of its own.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readonly: false,
            format: None,
            snapshot: false,
            backing: Vec::new(),
        }
    }

    /// Whether the guest writes to the image itself.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        !self.readonly && !self.snapshot
    }

    /// Whether the guest writes to a file that ends with the machine.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        self.snapshot && !self.readonly
    }
}

/// A section of virtual EPC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpcConfig {
    /// Its name, for messages and monitoring.
    pub id: String,
    /// Its size in bytes, a multiple of the page size.
    pub size: u64,
    /// Back every page before the guest starts, instead of on first touch.
    pub prealloc: bool,
    /// NUMA node of the guest that it is on.
    pub node: u32,
    /// Node of the platform that its pages are on.
    pub host_node: u32,
}

/// Where a machine's kernel comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootConfig {
    /// Files of the host.
    Kernel {
        /// Kernel: bzImage, or ELF with a PVH entry.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
    /// The first disk: what its boot loader's configuration names, read again at each boot.
    Disk,
}

impl BootConfig {
    /// What was given for it, with `default` as the command line of a kernel that is
    /// given none. That a disk is there is judged with the rest of the machine.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WithoutKernel`].
    pub fn from_options(
        kernel: Option<PathBuf>,
        initrd: Option<PathBuf>,
        append: Option<String>,
        default: &str,
    ) -> Result<Self, ConfigError> {
        match (kernel, initrd, append) {
            (Some(kernel), initrd, append) => {
                let cmdline = append.unwrap_or_else(|| default.to_owned());
                Ok(Self::Kernel { kernel, initrd, cmdline })
            }
            (None, Some(_), _) => Err(ConfigError::WithoutKernel(Setting::Initrd)),
            (None, None, Some(_)) => Err(ConfigError::WithoutKernel(Setting::CommandLine)),
            (None, None, None) => Ok(Self::Disk),
        }
    }
}

/// A machine to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Its name, for monitoring.
    pub name: Option<String>,
    /// What it boots.
    pub boot: BootConfig,
    /// RAM in bytes.
    pub ram: u64,
    /// Number of processors.
    pub cpus: u32,
    /// NUMA nodes; none stand for one that has everything.
    pub nodes: Vec<NodeConfig>,
    /// Disks, in the order of their virtio-mmio slots.
    pub disks: Vec<DiskConfig>,
    /// EPC sections, in address order.
    pub epc: Vec<EpcConfig>,
    /// Bytes of the platform's EPC that the machine can have at most, whatever its sections say.
    pub epc_quota: Option<u64>,
    /// Bytes of the platform's EPC that the machine can have whatever other machines take.
    pub epc_reserve: Option<u64>,
    /// What CPUID says of SGX, if there are EPC sections.
    pub cpu: CpuConfig,
    /// What IA32_SGXLEPUBKEYHASH0-3 hold after reset, instead of the hash of Intel's key.
    pub launch_key: Option<[u8; 32]>,
    /// Directory of the SGX platform; without one the machine has its own, which ends with it.
    pub platform: Option<PathBuf>,
    /// A reset ends the machine instead of starting the kernel again.
    pub no_reboot: bool,
    /// What executes the processors.
    pub accelerator: Choice,
    /// Whether software processors translate guest code.
    pub translate: Translate,
}

/// Whether a software processor translates guest code to code of the host.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Translate {
    /// It interprets all of it.
    Off,
    /// It translates what runs often.
    #[default]
    On,
    /// It translates what runs a second time, to test the translator.
    Always,
    /// It translates what has run so often, to test the translator.
    From(u32),
}

/// Why a machine cannot be as it was asked for. [`ConfigError::complaint`] says which setting is at
/// fault and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// The RAM cannot be laid out.
    #[error("{0}")]
    Memory(LayoutError),
    /// Neither a kernel nor a disk that may have one.
    #[error("there is nothing to boot")]
    NothingToBoot,
    /// Something that goes with a kernel, without one.
    #[error("{} is given without a kernel", .0.plain())]
    WithoutKernel(Setting),
    /// More disks than slots.
    #[error("{0} disks are more than the {MAX_DISKS} that fit")]
    TooManyDisks(usize),
    /// Two sections of the same id.
    #[error("the id {0} is given to two sections")]
    EpcIdTwice(String),
    /// The sections cannot be laid out.
    #[error("{0}")]
    Epc(LayoutError),
    /// More EPC to be reserved than the machine can have.
    #[error("{} is more than the quota of {}", format_size(*.reserve), format_size(*.quota))]
    EpcReserveAboveQuota {
        /// Bytes to be reserved.
        reserve: u64,
        /// Bytes that the machine can have at most.
        quota: u64,
    },
    /// A limit of EPC for a guest without EPC.
    #[error("it is for guests with SGX, which EPC makes")]
    EpcLimitWithoutEpc(Setting),
    /// The NUMA nodes are not what the machine consists of.
    #[error("{0}")]
    Nodes(NodeError),
    /// A guest with EPC whose CPUID is to be without SGX.
    #[error("-sgx takes SGX away and there is EPC")]
    EpcWithoutSgx,
    /// A flag of SGX for a guest without EPC.
    #[error("+{0} is for guests with SGX, which EPC makes")]
    CpuWithoutEpc(&'static str),
    /// A launch key for a guest without EPC.
    #[error("it is for guests with SGX, which EPC makes")]
    LaunchKeyWithoutEpc,
}

impl ConfigError {
    /// Which setting is at fault, why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        let new = |setting, fix: Fix| Complaint::new(setting, self.to_string(), fix);
        let add_epc =
            || Phrase::from("add ").setting(Setting::Epc).text(", or leave it out").into();
        match self {
            Self::Memory(error) => Complaint::about(Setting::Memory, error),
            Self::NothingToBoot => new(Setting::Boot, Fix::NameBoot),
            Self::WithoutKernel(setting) => {
                let why = Phrase::from("it goes with ").setting(Setting::Kernel);
                let add = Phrase::from("add ").setting(Setting::Kernel).text(" FILE, or leave ");
                let fix = add.setting(*setting).text(" out to boot what the disk says");
                Complaint::new(*setting, why, fix)
            }
            Self::TooManyDisks(_) => new(Setting::Disk, "leave some out".into()),
            Self::EpcIdTwice(_) => new(Setting::Epc, "give each its own".into()),
            Self::Epc(error) => Complaint::about(Setting::Epc, error),
            Self::EpcReserveAboveQuota { reserve, quota } => {
                let why = format!(
                    "{} is more than the {} of ",
                    format_size(*reserve),
                    format_size(*quota)
                );
                let why = Phrase::from(why).setting(Setting::EpcQuota);
                let fix = "write a smaller size, or a larger quota";
                Complaint::new(Setting::EpcReserve, why, fix)
            }
            Self::EpcLimitWithoutEpc(setting) => new(*setting, add_epc()),
            Self::Nodes(error) => Complaint::about(Setting::Nodes, error),
            Self::EpcWithoutSgx => {
                let why = Phrase::from("-sgx takes SGX away and ").setting(Setting::Epc);
                Complaint::new(Setting::Cpu, why.text(" gives it EPC"), "leave one of them out")
            }
            Self::CpuWithoutEpc(_) => new(Setting::Cpu, add_epc()),
            Self::LaunchKeyWithoutEpc => new(Setting::LaunchKey, add_epc()),
        }
    }
}

// Not by `#[from]`, which makes a source: the message has it already.
impl From<NodeError> for ConfigError {
    fn from(error: NodeError) -> Self {
        Self::Nodes(error)
    }
}

/// A text that is not a number of processors that a machine can have.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0:?} is not a number of processors: write 1 to {MAX_CPUS}")]
pub struct CpusError(String);

/// Reads a number of processors: 1 to [`MAX_CPUS`].
///
/// # Errors
///
/// [`CpusError`].
pub fn parse_cpus(text: &str) -> Result<u32, CpusError> {
    text.parse()
        .ok()
        .filter(|cpus| (1..=MAX_CPUS).contains(cpus))
        .ok_or_else(|| CpusError(text.to_owned()))
}

/// A text that is not the hash of a key.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0:?} is not the SHA-256 of a key: write its 64 hexadecimal digits")]
pub struct LaunchKeyError(String);

/// Reads the hash of a launch key: MRSIGNER of launch enclaves, in the order of its bytes.
///
/// # Errors
///
/// [`LaunchKeyError`].
pub fn parse_launch_key(text: &str) -> Result<[u8; 32], LaunchKeyError> {
    unhex(text).ok_or_else(|| LaunchKeyError(text.to_owned()))
}

/// QEMU's rule for ids, so that one command line can name the same sections to both.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

impl MachineConfig {
    /// What monitoring calls the machine.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or("guest")
    }

    /// Checks what concerns several values together, and lays out the address map.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn layout(&self) -> Result<Layout, ConfigError> {
        if self.boot == BootConfig::Disk && self.disks.is_empty() {
            return Err(ConfigError::NothingToBoot);
        }
        if self.disks.len() > MAX_DISKS {
            return Err(ConfigError::TooManyDisks(self.disks.len()));
        }
        for (index, section) in self.epc.iter().enumerate() {
            if self.epc[..index].iter().any(|earlier| earlier.id == section.id) {
                return Err(ConfigError::EpcIdTwice(section.id.clone()));
            }
        }
        self.check_sgx()?;
        self.check_epc_limits()?;
        let epc = self.epc.iter().map(|section| (section.id.as_str(), section.node));
        nodes::check(&self.nodes, self.cpus, self.ram, epc)?;
        let sizes: Vec<u64> = self.epc.iter().map(|section| section.size).collect();
        Layout::new(self.ram, &sizes).map_err(|error| match error {
            LayoutError::TooSmall(_) | LayoutError::RamTooLarge(_) => ConfigError::Memory(error),
            LayoutError::EpcTooLarge { .. } | LayoutError::TooManySections(_) => {
                ConfigError::Epc(error)
            }
        })
    }

    /// Whether the guest has EPC exactly where it is to have SGX.
    fn check_sgx(&self) -> Result<(), ConfigError> {
        if !self.epc.is_empty() {
            return if self.cpu.sgx { Ok(()) } else { Err(ConfigError::EpcWithoutSgx) };
        }
        match (self.cpu.wanted, self.launch_key) {
            (Some(flag), _) => Err(ConfigError::CpuWithoutEpc(flag)),
            (None, Some(_)) => Err(ConfigError::LaunchKeyWithoutEpc),
            (None, None) => Ok(()),
        }
    }

    /// Whether quota and reservation go together. How much EPC there is the platform knows.
    fn check_epc_limits(&self) -> Result<(), ConfigError> {
        for (setting, limit) in
            [(Setting::EpcQuota, self.epc_quota), (Setting::EpcReserve, self.epc_reserve)]
        {
            if limit.is_some() && self.epc.is_empty() {
                return Err(ConfigError::EpcLimitWithoutEpc(setting));
            }
        }
        match (self.epc_reserve, self.epc_quota) {
            (Some(reserve), Some(quota)) if reserve > quota => {
                Err(ConfigError::EpcReserveAboveQuota { reserve, quota })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
