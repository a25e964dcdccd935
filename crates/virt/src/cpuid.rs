//! CPUID as an SGX guest sees it.

use cloister_sgx::{AttributeFlags, Capabilities, SgxFeatures};
use cloister_x86::cpuid::{
    CpuidResult, FEATURE_7_EBX_SGX, FEATURE_7_ECX_SGX_LC, LEAF_EXTENDED_FEATURES, LEAF_SGX,
};
use cloister_x86::{Gpa, PAGE_SIZE};

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
}

impl SgxCpuid {
    /// All that `platform` can do, but for provisioning keys unless `provisioning`.
    #[must_use]
    pub fn all_of(platform: &Capabilities, provisioning: bool) -> Self {
        let mut capabilities = *platform;
        if !provisioning {
            capabilities.attributes.remove(AttributeFlags::PROVISIONKEY);
        }
        Self { capabilities, launch_control: true }
    }

    /// Whether ENCLS leaf `leaf` is one that the guest's CPUID announces. Others are #UD when
    /// they exit, as on a processor without them.
    #[must_use]
    pub fn has_encls_leaf(&self, leaf: u32) -> bool {
        use cloister_sgx::encls::leaf as encls;
        let needed = match leaf {
            encls::ECREATE..=encls::ETRACK => SgxFeatures::SGX1,
            encls::EAUG..=encls::EMODT => SgxFeatures::SGX2,
            _ => return false,
        };
        self.capabilities.features.contains(needed)
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

/// CPUID.12H subleaf of a section (SDM Vol. 3D, table 36-6).
fn section_subleaf(base: Gpa, pages: usize) -> CpuidResult {
    let size = pages as u64 * PAGE_SIZE;
    CpuidResult {
        eax: (base.0 as u32 & 0xffff_f000) | SUBLEAF_EPC,
        ebx: (base.0 >> 32) as u32,
        ecx: (size as u32 & 0xffff_f000) | SECTION_PROTECTED,
        edx: (size >> 32) as u32,
    }
}
