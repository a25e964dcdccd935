//! The platform whose EPC backs a machine's virtual EPC, and what of it the machine may have.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cloister_sgx::{
    AttributeFlags, Capabilities, DEFAULT_LE_HASH, EpcSectionConfig, Platform, PlatformConfig,
    PlatformFuses, PlatformIdentity, SgxFeatures,
};
use cloister_virt::{
    EpcAccount, EpcLimits, EpcPool, LimitError, ProvisioningRight, SectionConfig, SgxCpuid, SgxVm,
    VmError,
};
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use crate::config::{EpcConfig, MachineConfig};
use crate::layout::Layout;
use crate::platform_dir::{ProvisionError, provision_file, provisioning_right};
use crate::size::format_size;

/// Why a machine cannot have its virtual EPC.
#[derive(Debug, Error)]
pub enum EpcError {
    /// More pages than a platform can number.
    #[error("the sections together are {0} pages, more than 2^32 - 1: give them smaller sizes")]
    TooLarge(u64),
    /// The host's random source does not answer.
    #[error("cannot draw a platform identity: {0}: make /dev/urandom readable")]
    Identity(io::Error),
    /// The platform refused its configuration.
    #[error("{0}: give the sections other sizes")]
    Platform(cloister_sgx::PlatformError),
    /// The sections cannot be made.
    #[error("{0}: give the section a smaller size or leave prealloc=on out")]
    Sections(VmError),
}

/// Why no EPC can be kept for a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ReserveError {
    /// More than the machine could ever have.
    #[error(
        "{} is more than the quota of {}: write a smaller size",
        format_size(*.reserve),
        format_size(*.quota)
    )]
    AboveQuota {
        /// Bytes to be reserved.
        reserve: u64,
        /// Bytes that the machine can have at most.
        quota: u64,
    },
    /// More than what of the platform's EPC is neither in use nor reserved by others.
    #[error(
        "{} is more than the {} that are left of the platform's EPC: write a smaller size",
        format_size(*.reserve),
        format_size(*.available)
    )]
    Unavailable {
        /// Bytes to be reserved.
        reserve: u64,
        /// Bytes that can be.
        available: u64,
    },
}

impl From<LimitError> for ReserveError {
    fn from(error: LimitError) -> Self {
        let bytes = |pages: usize| pages as u64 * PAGE_SIZE;
        match error {
            LimitError::AboveQuota { reservation, quota } => {
                Self::AboveQuota { reserve: bytes(reservation), quota: bytes(quota) }
            }
            LimitError::Unavailable { reservation, available } => {
                Self::Unavailable { reserve: bytes(reservation), available: bytes(available) }
            }
        }
    }
}

/// Pages of all sections together.
fn pages(sections: &[EpcConfig]) -> Result<u32, EpcError> {
    let total: u64 = sections.iter().map(|section| section.size / PAGE_SIZE).sum();
    u32::try_from(total).map_err(|_| EpcError::TooLarge(total))
}

/// The platform's own sections: on each of its nodes as much as the guest has from there.
fn platform_sections(sections: &[EpcConfig]) -> Vec<EpcSectionConfig> {
    let mut nodes: BTreeMap<u32, u32> = BTreeMap::new();
    for section in sections {
        *nodes.entry(section.host_node).or_default() +=
            u32::try_from(section.size / PAGE_SIZE).unwrap_or(u32::MAX);
    }
    nodes.into_iter().map(|(node, pages)| EpcSectionConfig { pages, node }).collect()
}

/// Whether a platform can have these sections.
pub(super) fn check(sections: &[EpcConfig]) -> Result<(), EpcError> {
    pages(sections).map(drop)
}

/// The right to the provisioning key, if the machine is to have it.
pub(super) fn provisioning(
    config: &MachineConfig,
) -> Result<Option<ProvisioningRight>, ProvisionError> {
    let asked = config.cpu.capabilities.attributes.contains(AttributeFlags::PROVISIONKEY);
    if !asked || config.epc.is_empty() {
        return Ok(None);
    }
    match &config.platform {
        Some(directory) => provisioning_right(&provision_file(directory)).map(Some),
        None => Ok(Some(ProvisioningRight::of_own_platform())),
    }
}

/// What the platform of the host can do: every leaf and every attribute, for enclaves with the state
/// that a software processor has.
fn host_capabilities() -> Capabilities {
    let never = AttributeFlags::INIT | AttributeFlags::CET;
    Capabilities {
        features: SgxFeatures::all(),
        attributes: AttributeFlags::all().difference(never),
        ..Capabilities::default()
    }
}

/// The EPC of a platform with these sections, and with the keys that `fuses` stand for or keys that
/// end with the process. The platform can do all that there is: what of that a guest has, its CPUID
/// says. Pages cost the host nothing until they are used. Machines share it by [`Machine::on`].
///
/// # Errors
///
/// [`EpcError`].
///
/// [`Machine::on`]: super::Machine::on
pub fn platform_epc(
    sections: Vec<EpcSectionConfig>,
    fuses: Option<PlatformFuses>,
    launch_key: Option<[u8; 32]>,
) -> Result<Arc<EpcPool>, EpcError> {
    let identity = match fuses {
        Some(fuses) => fuses.boot(),
        None => PlatformIdentity::throw_away(),
    };
    let platform = Platform::new(PlatformConfig {
        default_le_hash: launch_key.unwrap_or(DEFAULT_LE_HASH),
        capabilities: host_capabilities(),
        sections,
        ..PlatformConfig::single(0, identity.map_err(EpcError::Identity)?)
    });
    Ok(EpcPool::new(Arc::new(platform.map_err(EpcError::Platform)?)))
}

/// The EPC of a platform that one machine has for itself: as much as its guest.
pub(super) fn own_epc(
    config: &MachineConfig,
    fuses: Option<PlatformFuses>,
) -> Result<Arc<EpcPool>, EpcError> {
    platform_epc(platform_sections(&config.epc), fuses, config.launch_key)
}

/// What a machine has of `pool`, within its limits.
pub(super) fn account(
    config: &MachineConfig,
    pool: &Arc<EpcPool>,
) -> Result<Arc<EpcAccount>, ReserveError> {
    // A limit beyond what can be counted is none.
    let pages = |bytes: u64| usize::try_from(bytes / PAGE_SIZE).unwrap_or(usize::MAX);
    let limits = EpcLimits {
        reservation: config.epc_reserve.map_or(0, pages),
        quota: config.epc_quota.map_or(usize::MAX, pages),
    };
    Ok(pool.open(config.display_name(), limits)?)
}

/// Makes the virtual EPC of a machine, which draws on `account`.
pub(super) fn virtual_epc(
    config: &MachineConfig,
    capabilities: Capabilities,
    account: Arc<EpcAccount>,
    provisioning: Option<ProvisioningRight>,
    layout: &Layout,
) -> Result<Arc<SgxVm>, EpcError> {
    let cpuid = SgxCpuid { capabilities, launch_control: config.cpu.launch_control, provisioning };
    let sections: Vec<SectionConfig> = config
        .epc
        .iter()
        .zip(layout.epc())
        .map(|(section, range)| SectionConfig {
            base: Gpa(range.start),
            size: section.size,
            node: section.host_node,
            preallocate: section.prealloc,
        })
        .collect();
    let vm = SgxVm::new(account, &sections, cpuid).map_err(EpcError::Sections)?;
    Ok(Arc::new(vm))
}

#[cfg(test)]
mod tests {
    use cloister_sgx::encls::leaf;

    use super::*;
    use crate::config::BootConfig;
    use crate::cpu_flags::CpuConfig;

    const RAM: u64 = 128 << 20;
    const EPC: u64 = 1 << 20;

    /// The SGX of a machine with this CPUID.
    fn sgx(change: impl FnOnce(&mut Capabilities)) -> Arc<SgxVm> {
        let mut cpu = CpuConfig::default();
        change(&mut cpu.capabilities);
        let config = MachineConfig {
            name: None,
            boot: BootConfig::Kernel { kernel: "k".into(), initrd: None, cmdline: String::new() },
            ram: RAM,
            cpus: 1,
            nodes: Vec::new(),
            disks: Vec::new(),
            epc: vec![EpcConfig::parse("id=a,size=1M").unwrap()],
            epc_quota: None,
            epc_reserve: None,
            cpu,
            launch_key: None,
            platform: None,
            no_reboot: false,
            accelerator: crate::accel::Choice::Soft,
            translate: crate::config::Translate::On,
        };
        let layout = Layout::new(RAM, &[EPC]).unwrap();
        let right = provisioning(&config).unwrap();
        let account = account(&config, &own_epc(&config, None).unwrap()).unwrap();
        virtual_epc(&config, config.cpu.capabilities, account, right, &layout).unwrap()
    }

    #[test]
    fn ecreate_exits_unless_the_guest_has_all_of_the_platform() {
        let exits = |sgx: &Arc<SgxVm>| sgx.new_vcpu().encls_exiting() & 1 << leaf::ECREATE != 0;

        assert!(exits(&sgx(|_| {})));
        assert!(exits(&sgx(|guest| {
            *guest = Capabilities { miscselect: 0, ..host_capabilities() };
        })));
        assert!(!exits(&sgx(|guest| *guest = host_capabilities())));
    }

    #[test]
    fn what_the_guest_lacks_the_platform_has() {
        let sgx = sgx(|guest| guest.features = SgxFeatures::SGX1);

        assert_eq!(sgx.cpuid().capabilities.features, SgxFeatures::SGX1);
        assert_eq!(sgx.platform().capabilities().features, SgxFeatures::all());
    }
}
