//! CPUID as an SGX guest sees it.

use cloister_sgx::{AttributeFlags, Capabilities, Platform, SgxFeatures};
use cloister_x86::cpuid::{
    CpuidResult, FEATURE_7_EBX_SGX, FEATURE_7_ECX_SGX_LC, LEAF_EXTENDED_FEATURES, LEAF_SGX,
};
use cloister_x86::{Gpa, PAGE_SIZE};

use crate::provision::ProvisioningRight;
use crate::vepc::VirtualEpc;

/// CPUID.12H subleaf 2 and up: a subleaf that describes an EPC section (EAX bits 3:0).
const SUBLEAF_EPC: u32 = 1;
/// The same: the section has confidentiality and integrity protection (ECX bits 3:0).
const SECTION_PROTECTED: u32 = 1;
/// First subleaf that describes an EPC section.
const FIRST_SECTION: u32 = 2;

/// What a guest's CPUID says of SGX, and so what its leaves may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SgxCpuid {
    /// What leaf 12H subleaves 0 and 1 enumerate. A subset of the platform's.
    pub capabilities: Capabilities,
    /// CPUID.7.0:ECX.SGX_LC: the guest may write IA32_SGXLEPUBKEYHASH0-3.
    pub launch_control: bool,
    /// Without it, no SECS can have PROVISIONKEY, and CPUID must not say otherwise.
    pub provisioning: Option<ProvisioningRight>,
}

impl SgxCpuid {
    /// All that `platform` can do, but for provisioning keys without the right to them.
    #[must_use]
    pub fn all_of(platform: &Capabilities, provisioning: Option<ProvisioningRight>) -> Self {
        let mut capabilities = *platform;
        if provisioning.is_none() {
            capabilities.attributes.remove(AttributeFlags::PROVISIONKEY);
        }
        Self { capabilities, launch_control: true, provisioning }
    }

    /// Whether ENCLS leaf `leaf` is one that the guest's CPUID announces
    /// (`encls_leaf_enabled_in_guest` in Linux's KVM). Others exit, and are #GP(0).
    #[must_use]
    pub fn has_encls_leaf(&self, leaf: u32) -> bool {
        use cloister_sgx::encls::leaf as encls;
        let needed = match leaf {
            encls::ECREATE..=encls::ETRACK => SgxFeatures::SGX1,
            encls::EAUG..=encls::EMODT => SgxFeatures::SGX2,
            encls::ERDINFO..=encls::ELDUC => SgxFeatures::OVERSUB_ENCLS,
            _ => return false,
        };
        self.capabilities.features.contains(needed)
    }

    /// Whether ECREATE may run without a look at the SECS: whatever the platform lets an SECS have,
    /// the guest's CPUID announces too.
    pub(crate) fn allows_every_secs_of(&self, platform: &Capabilities) -> bool {
        let guest = &self.capabilities;
        guest.miscselect == platform.miscselect
            && guest.attributes == platform.attributes
            && guest.xfrm == platform.xfrm
            && guest.max_enclave_size_not64 == platform.max_enclave_size_not64
            && guest.max_enclave_size_64 == platform.max_enclave_size_64
    }

    /// Whether a guest on `platform` can have this CPUID: no bit of it contradicts another, and
    /// the platform can do all that it says.
    pub(crate) fn check(&self, platform: &Platform) -> Result<(), &'static str> {
        let guest = &self.capabilities;
        let host = platform.capabilities();
        let beyond_sgx1 = !guest.features.difference(SgxFeatures::SGX1).is_empty();
        if beyond_sgx1 && !guest.features.contains(SgxFeatures::SGX1) {
            return Err("SGX2 and all later leaves need SGX1");
        }
        if !host.features.contains(guest.features) {
            return Err("the platform has fewer leaves");
        }
        if guest.miscselect & !host.miscselect != 0 {
            return Err("MISCSELECT has bits that the platform has not");
        }
        if !host.attributes.contains(guest.attributes) {
            return Err("ATTRIBUTES has bits that the platform has not");
        }
        if guest.attributes.contains(AttributeFlags::PROVISIONKEY) && self.provisioning.is_none() {
            return Err("PROVISIONKEY needs the right to give it");
        }
        // SDM Vol. 3D, 39.7.3: x87 and SSE state always.
        if guest.xfrm & 3 != 3 || guest.xfrm & !host.xfrm != 0 {
            return Err("XFRM lacks x87 or SSE, or has bits that the platform has not");
        }
        if guest.max_enclave_size_not64 > host.max_enclave_size_not64
            || guest.max_enclave_size_64 > host.max_enclave_size_64
        {
            return Err("the largest enclave is larger than the platform's");
        }
        if self.launch_control && !platform.le_hash_writable() {
            return Err("SGX_LC needs a platform whose launch control is not locked");
        }
        Ok(())
    }

    /// Adds what the guest has of SGX to leaf 7 and answers leaf 12H; other results are returned
    /// as they are. `sections` are the guest's EPC sections in order.
    #[must_use]
    pub fn amend(
        &self,
        leaf: u32,
        subleaf: u32,
        mut result: CpuidResult,
        sections: &[VirtualEpc],
    ) -> CpuidResult {
        match (leaf, subleaf) {
            (LEAF_EXTENDED_FEATURES, 0) => {
                result.ebx |= FEATURE_7_EBX_SGX;
                result.ecx &= !FEATURE_7_ECX_SGX_LC;
                if self.launch_control {
                    result.ecx |= FEATURE_7_ECX_SGX_LC;
                }
                result
            }
            (LEAF_SGX, 0) => self.capabilities.cpuid_leaf0(),
            (LEAF_SGX, 1) => self.capabilities.cpuid_leaf1(),
            (LEAF_SGX, n) => sections
                .get(n.wrapping_sub(FIRST_SECTION) as usize)
                .map_or(CpuidResult::default(), |section| {
                    section_subleaf(section.base(), section.pages())
                }),
            _ => result,
        }
    }
}

/// CPUID.12H subleaf of a section (SDM Vol. 3D, 34.7.2).
fn section_subleaf(base: Gpa, pages: usize) -> CpuidResult {
    let size = pages as u64 * PAGE_SIZE;
    CpuidResult {
        eax: (base.0 as u32 & 0xffff_f000) | SUBLEAF_EPC,
        ebx: (base.0 >> 32) as u32 & 0xf_ffff,
        ecx: (size as u32 & 0xffff_f000) | SECTION_PROTECTED,
        edx: (size >> 32) as u32 & 0xf_ffff,
    }
}
