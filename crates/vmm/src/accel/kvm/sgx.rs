//! SGX of the host for a guest: its processors execute the leaves, and its kernel's `/dev/sgx_vepc` has the
//! EPC.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use cloister_sgx::{AttributeFlags, Capabilities};
use cloister_virt::{CpuidError, ProvisioningRight, SectionConfig, SgxCpuid};
use cloister_x86::cpuid::CpuidResult;
use cloister_x86::{Gpa, PAGE_SIZE, msr};
use kvm_bindings::{KVM_CAP_SGX_ATTRIBUTE, kvm_enable_cap};
use kvm_ioctls::VmFd;
use thiserror::Error;

use super::host::{Host, who_can};
use super::vepc::{self, Vepc};
use crate::accel::VcpuError;
use crate::complaint::{Complaint, Fix, Phrase, Setting};
use crate::config::MachineConfig;
use crate::layout::Layout;
use crate::size::format_size;

/// Who can open it has the right to the provisioning key.
const PROVISION: &str = "/dev/sgx_provision";

/// Why a machine cannot have the host's SGX. [`HostSgxError::complaint`] says what to do.
#[derive(Debug, Error)]
pub enum HostSgxError {
    /// KVM has none for guests.
    #[error(
        "the host's KVM gives guests no SGX: its processor has none, its firmware has not enabled it, or \
         kvm_intel was loaded with sgx=0"
    )]
    None,
    /// There is no device.
    #[error(
        "there is no {0}, which a kernel with CONFIG_X86_SGX_KVM makes where the firmware has enabled SGX"
    )]
    Missing(&'static str),
    /// The process may not open a device.
    #[error("cannot open {node}, which {who}")]
    Forbidden {
        /// The device.
        node: &'static str,
        /// Who may, and what to do.
        who: String,
    },
    /// A device cannot be opened.
    #[error("cannot open {node}: {source}")]
    Open {
        /// The device.
        node: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// What the right to the provisioning key takes.
    #[error("+sgx-provisionkey: {0}")]
    Provision(Box<Self>),
    /// The host's processor has no provisioning key for enclaves of guests.
    #[error("+sgx-provisionkey: the host's KVM gives guests no provisioning key")]
    NoProvisioningKey,
    /// The guest's CPUID contradicts itself.
    #[error("unsupported SGX CPUID: {0}")]
    Cpuid(CpuidError),
    /// A platform of software.
    #[error("the keys are those of the host's processor")]
    Platform,
    /// Another launch key on a host that is locked to one.
    #[error("the host's processor is locked to one launch key")]
    LaunchKey,
    /// A limit that is kept by whoever gives out EPC, which is the host's kernel.
    #[error("the host's kernel gives out the EPC, and keeps the limits of control group misc")]
    Limit(Setting),
    /// EPC of a certain node of the host.
    #[error("section {0}: Linux takes EPC from the node of the processor that touches it first")]
    HostNode(String),
    /// A section cannot be mapped.
    #[error("section {id}: {path} maps no {size}: {source}", path = vepc::NODE, size = format_size(*.size))]
    Map {
        /// The section.
        id: String,
        /// Its size in bytes.
        size: u64,
        /// What the kernel says.
        source: io::Error,
    },
    /// A section cannot be backed.
    #[error("section {id}: the host has EPC for {done} of its {total} pages: {source}")]
    Populate {
        /// The section.
        id: String,
        /// Pages that are backed.
        done: u64,
        /// Pages.
        total: u64,
        /// What the kernel says.
        source: io::Error,
    },
}

impl HostSgxError {
    /// Which setting is at fault, why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        let soft = |first: &'static str| -> Fix {
            Phrase::from(first).setting(Setting::Accelerator).text(" soft").into()
        };
        let (setting, fix) = match self {
            Self::None => (Setting::Accelerator, soft("write ")),
            Self::Missing(_) | Self::Forbidden { .. } | Self::Open { .. } => {
                (Setting::Accelerator, soft("or write "))
            }
            Self::Provision(_) | Self::NoProvisioningKey => {
                (Setting::Cpu, "leave the flag out".into())
            }
            Self::Cpuid(_) => (Setting::Cpu, "leave flags out".into()),
            Self::Platform => (Setting::Platform, soft("leave it out, or write ")),
            Self::LaunchKey => (Setting::LaunchKey, soft("leave it out, or write ")),
            &Self::Limit(setting) => (setting, soft("leave it out, or write ")),
            Self::HostNode(_) => (Setting::Epc, "write node 0, or leave it out".into()),
            Self::Map { .. } => (Setting::Epc, "write a smaller size".into()),
            Self::Populate { .. } => {
                (Setting::Epc, "write a smaller size, or leave prealloc out".into())
            }
        };
        Complaint::new(setting, self.to_string(), fix)
    }
}

/// Why sections are not unused.
#[derive(Debug, Error)]
pub enum VepcResetError {
    /// The kernel refuses.
    #[error("SGX_IOC_VEPC_REMOVE_ALL: {0}")]
    Refused(io::Error),
    /// Pages that no section of the machine explains.
    #[error("{0} pages of the virtual EPC stay in use")]
    InUse(u64),
}

/// The SGX of a guest by that of the host.
#[derive(Debug)]
pub struct HostSgx {
    /// What guests of this host can have.
    host: Capabilities,
    cpuid: SgxCpuid,
    sections: Vec<SectionConfig>,
    vepc: Vec<Vepc>,
    /// What KVM takes for the right to the provisioning key.
    provision: Option<File>,
    launch_key: Option<[u8; 32]>,
}

impl HostSgx {
    /// Whether the host has SGX for guests. Returns whether they can have launch control.
    ///
    /// # Errors
    ///
    /// [`HostSgxError`].
    pub(in crate::accel) fn offered(host: &Host) -> Result<bool, HostSgxError> {
        let (_, launch_control) = host.cpu.sgx().ok_or(HostSgxError::None)?;
        Vepc::open().map_err(|error| not_opened(vepc::NODE, error))?;
        Ok(launch_control)
    }

    /// Whether the host can give this machine SGX, as far as can be told before anything is made.
    ///
    /// # Errors
    ///
    /// [`HostSgxError`].
    pub(in crate::accel) fn check(host: &Host, config: &MachineConfig) -> Result<(), HostSgxError> {
        let launch_control = Self::offered(host)?;
        if config.platform.is_some() {
            return Err(HostSgxError::Platform);
        }
        if config.launch_key.is_some() && !launch_control {
            return Err(HostSgxError::LaunchKey);
        }
        for (limit, setting) in
            [(config.epc_quota, Setting::EpcQuota), (config.epc_reserve, Setting::EpcReserve)]
        {
            if limit.is_some() {
                return Err(HostSgxError::Limit(setting));
            }
        }
        if let Some(section) = config.epc.iter().find(|section| section.host_node != 0) {
            return Err(HostSgxError::HostNode(section.id.clone()));
        }
        cpuid(host, config, provision(host, config)?.as_ref()).map(drop)
    }

    /// Maps the machine's sections, and backs those that are to be.
    ///
    /// # Errors
    ///
    /// [`HostSgxError`].
    pub(crate) fn open(
        host: &Host,
        config: &MachineConfig,
        layout: &Layout,
    ) -> Result<Self, HostSgxError> {
        let (capabilities, _) = host.cpu.sgx().ok_or(HostSgxError::None)?;
        let (mut sections, mut vepc) = (Vec::new(), Vec::new());
        for (section, range) in config.epc.iter().zip(layout.epc()) {
            let file = Vepc::open().map_err(|error| not_opened(vepc::NODE, error))?;
            let mapped = Vepc::map(file, section.size).map_err(|source| HostSgxError::Map {
                id: section.id.clone(),
                size: section.size,
                source,
            })?;
            if section.prealloc {
                populate(&section.id, &mapped)?;
            }
            vepc.push(mapped);
            sections.push(SectionConfig {
                base: Gpa(range.start),
                size: section.size,
                node: section.host_node,
                preallocate: section.prealloc,
            });
        }
        let provision = provision(host, config)?;
        Ok(Self {
            host: capabilities,
            cpuid: cpuid(host, config, provision.as_ref())?,
            sections,
            vepc,
            provision,
            launch_key: config.launch_key,
        })
    }

    /// What guests of this host can have.
    #[must_use]
    pub const fn host(&self) -> &Capabilities {
        &self.host
    }

    /// What the guest's CPUID says.
    #[must_use]
    pub const fn cpuid(&self) -> &SgxCpuid {
        &self.cpuid
    }

    /// Adds SGX to the answer of CPUID. See [`SgxCpuid::amend`].
    #[must_use]
    pub fn amend_cpuid(&self, leaf: u32, subleaf: u32, result: CpuidResult) -> CpuidResult {
        self.cpuid.amend(leaf, subleaf, result, &self.sections)
    }

    /// Its sections: guest-physical address, host address and size in bytes.
    pub(super) fn regions(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let sections = self.sections.iter().zip(&self.vepc);
        sections.map(|(section, vepc)| (section.base.0, vepc.address(), vepc.len()))
    }

    /// Gives a virtual machine the provisioning key, if it is to have it.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    pub(super) fn provision(&self, vm: &VmFd) -> Result<(), VcpuError> {
        let Some(file) = &self.provision else { return Ok(()) };
        let mut capability = kvm_enable_cap { cap: KVM_CAP_SGX_ATTRIBUTE, ..Default::default() };
        // Not negative: it is open.
        capability.args[0] = u64::try_from(file.as_raw_fd()).unwrap_or(u64::MAX);
        let enabled = vm.enable_cap(&capability);
        enabled.map_err(|error| VcpuError::kvm("KVM_CAP_SGX_ATTRIBUTE", error))
    }

    /// The bits of IA32_FEATURE_CONTROL.
    pub(super) const fn feature_control(&self) -> u64 {
        let launch_control =
            if self.cpuid.launch_control { msr::FEATURE_CONTROL_SGX_LC } else { 0 };
        msr::FEATURE_CONTROL_SGX | launch_control
    }

    /// IA32_SGXLEPUBKEYHASH0 to 3, where they are not to be what KVM has them be.
    pub(super) fn launch_hash(&self) -> Vec<(u32, u64)> {
        let key = self.launch_key.unwrap_or_default();
        let (quads, _) = key.as_chunks::<8>();
        let values =
            (msr::SGXLEPUBKEYHASH0..).zip(quads.iter().map(|quad| u64::from_le_bytes(*quad)));
        if self.launch_key.is_some() { values.collect() } else { Vec::new() }
    }

    /// Makes every page of every section unused, for the next boot. Called while no processor runs.
    ///
    /// # Errors
    ///
    /// [`VepcResetError`].
    pub fn reset(&self) -> Result<(), VepcResetError> {
        let mut in_use = 0;
        // An SECS can go only when its pages have, which may be in a later section.
        for _ in 0..2 {
            in_use = 0;
            for vepc in &self.vepc {
                in_use += vepc.remove_all().map_err(VepcResetError::Refused)?;
            }
            if in_use == 0 {
                return Ok(());
            }
        }
        Err(VepcResetError::InUse(in_use))
    }
}

/// What the guest's CPUID says: what it was asked to say, of that what the host can do.
fn cpuid(
    host: &Host,
    config: &MachineConfig,
    provision: Option<&File>,
) -> Result<SgxCpuid, HostSgxError> {
    let (capabilities, launch_control) = host.cpu.sgx().ok_or(HostSgxError::None)?;
    let cpuid = SgxCpuid {
        capabilities: config.cpu.capabilities.intersection(&capabilities),
        launch_control: config.cpu.launch_control && launch_control,
        provisioning: provision.map(ProvisioningRight::by),
    };
    cpuid.check(&capabilities, launch_control).map_err(HostSgxError::Cpuid)?;
    Ok(cpuid)
}

/// What gives the right to the provisioning key, if the guest is to have it.
fn provision(host: &Host, config: &MachineConfig) -> Result<Option<File>, HostSgxError> {
    let has_key = |of: &Capabilities| of.attributes.contains(AttributeFlags::PROVISIONKEY);
    if !has_key(&config.cpu.capabilities) {
        return Ok(None);
    }
    if !host.cpu.sgx().is_some_and(|(capabilities, _)| has_key(&capabilities)) {
        return Err(HostSgxError::NoProvisioningKey);
    }
    let opened = OpenOptions::new().read(true).open(PROVISION);
    let refused = |error| HostSgxError::Provision(Box::new(not_opened(PROVISION, error)));
    opened.map(Some).map_err(refused)
}

fn populate(id: &str, vepc: &Vepc) -> Result<(), HostSgxError> {
    const EVERY: Duration = Duration::from_secs(1);
    let total = vepc.len() / PAGE_SIZE;
    let mut told = Instant::now();
    let progress = |done| {
        if told.elapsed() >= EVERY {
            told = Instant::now();
            tracing::warn!("section {id}: {done} of {total} pages of EPC are backed");
        }
    };
    vepc.populate(progress).map_err(|(done, source)| HostSgxError::Populate {
        id: id.to_owned(),
        done,
        total,
        source,
    })
}

fn not_opened(node: &'static str, source: io::Error) -> HostSgxError {
    match source.kind() {
        io::ErrorKind::NotFound => HostSgxError::Missing(node),
        io::ErrorKind::PermissionDenied => {
            HostSgxError::Forbidden { node, who: who_can(node, "sgx") }
        }
        _ => HostSgxError::Open { node, source },
    }
}
