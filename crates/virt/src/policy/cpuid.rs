//! CPUID as an SGX guest sees it.

use cloister_sgx::{AttributeFlags, Capabilities, SgxFeatures};
use cloister_x86::cpuid::{
    CpuidResult, FEATURE_7_EBX_SGX, FEATURE_7_ECX_SGX_LC, LEAF_EXTENDED_FEATURES, LEAF_SGX,
};
use thiserror::Error;

use super::provision::ProvisioningRight;
use super::sections::SectionConfig;

/// First subleaf that describes an EPC section.
const FIRST_SECTION: u32 = 2;

/// Why a guest cannot have a CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CpuidError {
    /// Leaves that do not come without SGX1.
    #[error("SGX2 and all later leaves need SGX1")]
    WithoutSgx1,
    /// Leaves that the host lacks.
    #[error("the platform has fewer leaves")]
    Leaves,
    /// Bits of MISCSELECT that the host lacks.
    #[error("MISCSELECT has bits that the platform has not")]
    MiscSelect,
    /// Attributes that the host lacks.
    #[error("ATTRIBUTES has bits that the platform has not")]
    Attributes,
    /// PROVISIONKEY without a [`ProvisioningRight`].
    #[error("PROVISIONKEY needs the right to give it")]
    Provisioning,
    /// XFRM that no enclave can have on this host.
    #[error("XFRM lacks x87 or SSE, or has bits that the platform has not")]
    Xfrm,
    /// Larger enclaves than the host's.
    #[error("the largest enclave is larger than the platform's")]
    EnclaveSize,
    /// SGX_LC on a host that is locked to one key.
    #[error("SGX_LC needs a platform whose launch control is not locked")]
    LaunchControl,
}

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

    /// Whether a guest can have this CPUID on a host that has the capabilities `host`, and whose
    /// launch-control hash can be written or not: no bit contradicts another, and the host can do
    /// all that it says. The guest's XFRM must be within its XCR0 besides, which is for who owns
    /// leaf 0DH to see to.
    ///
    /// # Errors
    ///
    /// [`CpuidError`].
    pub fn check(&self, host: &Capabilities, hash_writable: bool) -> Result<(), CpuidError> {
        let guest = &self.capabilities;
        let beyond_sgx1 = !guest.features.difference(SgxFeatures::SGX1).is_empty();
        if beyond_sgx1 && !guest.features.contains(SgxFeatures::SGX1) {
            return Err(CpuidError::WithoutSgx1);
        }
        if !host.features.contains(guest.features) {
            return Err(CpuidError::Leaves);
        }
        if guest.miscselect & !host.miscselect != 0 {
            return Err(CpuidError::MiscSelect);
        }
        if !host.attributes.contains(guest.attributes) {
            return Err(CpuidError::Attributes);
        }
        if guest.attributes.contains(AttributeFlags::PROVISIONKEY) && self.provisioning.is_none() {
            return Err(CpuidError::Provisioning);
        }
        // SDM Vol. 3D, 39.7.3: x87 and SSE state always.
        if guest.xfrm & 3 != 3 || guest.xfrm & !host.xfrm != 0 {
            return Err(CpuidError::Xfrm);
        }
        if guest.max_enclave_size_not64 > host.max_enclave_size_not64
            || guest.max_enclave_size_64 > host.max_enclave_size_64
        {
            return Err(CpuidError::EnclaveSize);
        }
        if self.launch_control && !hash_writable {
            return Err(CpuidError::LaunchControl);
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
        sections: &[SectionConfig],
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
                .map_or(CpuidResult::default(), SectionConfig::cpuid_subleaf),
            _ => result,
        }
    }
}
