//! Hosts and virtual machines of the tests.

use std::sync::Arc;

use cloister_sgx::{
    AttributeFlags, Capabilities, EpcIndex, EpcSectionConfig, MISCSELECT_EXINFO, Platform,
    PlatformConfig, PlatformIdentity, SgxFeatures,
};
use cloister_virt::{
    EpcAccount, EpcPool, ProvisioningRight, SectionConfig, SgxCpuid, SgxVm, VirtualEpc,
};
use cloister_x86::{Gpa, PAGE_SIZE};

/// Guest-physical address of the first section.
pub(crate) const EPC_GPA: u64 = 0x10_0000_0000;

/// All that a platform of the tests can do.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        features: SgxFeatures::SGX1 | SgxFeatures::SGX2,
        miscselect: MISCSELECT_EXINFO,
        attributes: AttributeFlags::DEBUG
            | AttributeFlags::MODE64BIT
            | AttributeFlags::PROVISIONKEY
            | AttributeFlags::EINITTOKEN_KEY
            | AttributeFlags::KSS,
        xfrm: 7,
        max_enclave_size_not64: 31,
        max_enclave_size_64: 36,
    }
}

/// A platform with one section of `pages` pages.
pub(crate) fn config(pages: u32) -> PlatformConfig {
    let identity = PlatformIdentity::from_seed(&[3; 32]);
    PlatformConfig { capabilities: capabilities(), ..PlatformConfig::single(pages, identity) }
}

pub(crate) fn pool(pages: u32) -> Arc<EpcPool> {
    EpcPool::new(Arc::new(Platform::new(config(pages)).expect("a valid platform")))
}

/// A pool over sections of this many pages on these nodes.
pub(crate) fn pool_of(sections: &[(u32, u32)]) -> Arc<EpcPool> {
    let sections = sections.iter().map(|&(pages, node)| EpcSectionConfig { pages, node }).collect();
    let config = PlatformConfig { sections, ..config(1) };
    EpcPool::new(Arc::new(Platform::new(config).expect("a valid platform")))
}

/// Every page that an account can still have, and the section that has them now.
pub(crate) fn drain(account: &Arc<EpcAccount>, node: u32) -> (VirtualEpc, Vec<EpcIndex>) {
    let total = account.pool().statistics().total as u64;
    let section = VirtualEpc::new(account.clone(), Gpa(0), total as usize, node);
    let touch = |page| section.populate(Gpa(page * PAGE_SIZE)).expect("in the section").ok();
    let pages = (0..total).map_while(touch).collect();
    (section, pages)
}

/// All of the platform, the provisioning key too.
pub(crate) fn everything() -> SgxCpuid {
    SgxCpuid::all_of(&capabilities(), Some(ProvisioningRight::of_own_platform()))
}

/// A section of `pages` pages at guest-physical address `base`.
pub(crate) const fn section(base: u64, pages: u64) -> SectionConfig {
    SectionConfig { base: Gpa(base), size: pages * PAGE_SIZE, node: 0, preallocate: false }
}

/// A virtual machine with one section of 16 pages on a host of 32.
pub(crate) fn vm(cpuid: SgxCpuid) -> Arc<SgxVm> {
    Arc::new(
        SgxVm::new(pool(32).unlimited("vm"), &[section(EPC_GPA, 16)], cpuid)
            .expect("a valid machine"),
    )
}
