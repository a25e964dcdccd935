//! The platform whose EPC is behind a machine's virtual EPC.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cloister_sgx::{
    AttributeFlags, Capabilities, DEFAULT_LE_HASH, EpcSectionConfig, Platform, PlatformConfig,
    PlatformFuses, PlatformIdentity, SgxFeatures,
};
use cloister_virt::{
    EpcPool, ProvisionError, ProvisioningRight, SectionConfig, SgxCpuid, SgxVm, VmError,
};
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use crate::config::{EpcConfig, MachineConfig};
use crate::layout::Layout;
use crate::platform_dir::provision_file;

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

/// Pages of all sections together.
fn pages(sections: &[EpcConfig]) -> Result<u32, EpcError> {
    let total: u64 = sections.iter().map(|section| section.size / PAGE_SIZE).sum();
    u32::try_from(total).map_err(|_| EpcError::TooLarge(total))
}

/// The platform's own sections: on each of its nodes as much as the guest has from there.
fn platform_sections(sections: &[EpcConfig]) -> Vec<EpcSectionConfig> {
    let mut nodes: BTreeMap<u32, u32> = BTreeMap::new();
    for section in sections {
        *nodes.entry(section.host_node).or_default() += (section.size / PAGE_SIZE) as u32;
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
        Some(directory) => ProvisioningRight::open(&provision_file(directory)).map(Some),
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

/// Makes the virtual EPC of a machine on a platform with the keys that `fuses` stand for, or of a
/// platform that ends with the process. The platform has as much EPC as the guest: pages cost the
/// host nothing until they are used. It can do all that there is; what of that the guest has, its
/// CPUID says. `None` without sections.
pub(super) fn virtual_epc(
    config: &MachineConfig,
    fuses: Option<PlatformFuses>,
    provisioning: Option<ProvisioningRight>,
    layout: &Layout,
) -> Result<Option<Arc<SgxVm>>, EpcError> {
    if config.epc.is_empty() {
        return Ok(None);
    }
    let identity = match fuses {
        Some(fuses) => fuses.boot(),
        None => PlatformIdentity::throw_away(),
    };
    let identity = identity.map_err(EpcError::Identity)?;
    let platform = Platform::new(PlatformConfig {
        default_le_hash: config.launch_key.unwrap_or(DEFAULT_LE_HASH),
        capabilities: host_capabilities(),
        sections: platform_sections(&config.epc),
        ..PlatformConfig::single(pages(&config.epc)?, identity)
    });
    let platform = platform.map_err(EpcError::Platform)?;
    let cpuid = SgxCpuid {
        capabilities: config.cpu.capabilities,
        launch_control: config.cpu.launch_control,
        provisioning,
    };
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
    let pool = EpcPool::new(Arc::new(platform));
    let account = pool.unlimited(config.display_name());
    let vm = SgxVm::new(account, &sections, cpuid).map_err(EpcError::Sections)?;
    Ok(Some(Arc::new(vm)))
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
            cpu,
            launch_key: None,
            platform: None,
            no_reboot: false,
        };
        let layout = Layout::new(RAM, &[EPC]).unwrap();
        let right = provisioning(&config).unwrap();
        virtual_epc(&config, None, right, &layout).unwrap().unwrap()
    }

    #[test]
    fn ecreate_exits_unless_the_guest_has_all_of_the_platform() {
        let exits = |sgx: &SgxVm| sgx.encls_exiting(&sgx.new_vcpu()) & 1 << leaf::ECREATE != 0;

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
