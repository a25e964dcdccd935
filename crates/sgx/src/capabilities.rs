//! What a platform or a guest on it can do, as CPUID leaf 12H enumerates it (SDM Vol. 3D, 34.7.2).

use bitflags::bitflags;
use cloister_x86::cpuid::CpuidResult;
use cloister_x86::{Exception, PageFaultCode, Vector};

use crate::attributes::{AttributeFlags, MISCSELECT_EXINFO};

bitflags! {
    /// The instruction sets of CPUID.12H.0:EAX.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
    pub struct SgxFeatures: u32 {
        /// The SGX1 leaves.
        const SGX1 = 1 << 0;
        /// The SGX2 leaves: EAUG, EMODPR, EMODT, EACCEPT, EMODPE, EACCEPTCOPY.
        const SGX2 = 1 << 1;
        /// The ENCLV leaves: EINCVIRTCHILD, EDECVIRTCHILD, ESETCONTEXT.
        const OVERSUB_ENCLV = 1 << 5;
        /// ETRACKC, ERDINFO, ELDBC, ELDUC.
        const OVERSUB_ENCLS = 1 << 6;
        /// EDECCSSA.
        const EDECCSSA = 1 << 11;
    }
}

/// The capabilities of a platform, or what of them a guest has. Each leaf obeys those that the
/// processor announces to its software ([`LeafPort::capabilities`](crate::LeafPort::capabilities)):
/// a leaf that is not announced is #GP(0), a bit that is not announced cannot be set in an SECS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// CPUID.12H.0:EAX.
    pub features: SgxFeatures,
    /// CPUID.12H.0:EBX: MISCSELECT bits that an SECS may set.
    pub miscselect: u32,
    /// CPUID.12H.1:EBX:EAX: ATTRIBUTES flags that an SECS may set. INIT never is among them.
    pub attributes: AttributeFlags,
    /// CPUID.12H.1:EDX:ECX: XFRM bits that an SECS may set.
    pub xfrm: u64,
    /// CPUID.12H.0:EDX bits 7:0: an enclave outside 64-bit mode is smaller than 2 to this power.
    pub max_enclave_size_not64: u8,
    /// CPUID.12H.0:EDX bits 15:8: an enclave in 64-bit mode is smaller than 2 to this power.
    pub max_enclave_size_64: u8,
}

impl Default for Capabilities {
    /// SGX1 and SGX2 with EXINFO, every attribute but CET, x87, SSE and AVX state, and enclaves of
    /// up to 2 GiB (32-bit) and 64 GiB (64-bit).
    fn default() -> Self {
        Self {
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
}

impl Capabilities {
    /// Those of a processor without SGX.
    pub const NONE: Self = Self {
        features: SgxFeatures::empty(),
        miscselect: 0,
        attributes: AttributeFlags::empty(),
        xfrm: 0,
        max_enclave_size_not64: 0,
        max_enclave_size_64: 0,
    };

    /// A fault that a leaf or an access in an enclave raised, as a processor with these
    /// capabilities delivers it: what the EPCM forbids is #PF with the SGX bit where SGX2 is
    /// announced, and #GP(0) elsewhere (SDM Vol. 3D, 35.3). Other faults stay.
    #[must_use]
    pub fn delivered(&self, exception: Exception) -> Exception {
        let epcm =
            exception.vector == Vector::Pf && exception.error_code & PageFaultCode::SGX.bits() != 0;
        let sgx2 = self.features.contains(SgxFeatures::SGX2);
        if epcm && !sgx2 { Exception::gp(0) } else { exception }
    }

    /// Those that CPUID.12H.0 and CPUID.12H.1 enumerate. Bits without a name here are left out, and INIT,
    /// which a processor may enumerate.
    #[must_use]
    pub fn from_cpuid(leaf0: CpuidResult, leaf1: CpuidResult) -> Self {
        let quad = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let attributes = AttributeFlags::from_bits_truncate(quad(leaf1.eax, leaf1.ebx));
        let [not64, in64, ..] = leaf0.edx.to_le_bytes();
        Self {
            features: SgxFeatures::from_bits_truncate(leaf0.eax),
            miscselect: leaf0.ebx,
            attributes: attributes.difference(AttributeFlags::INIT),
            xfrm: quad(leaf1.ecx, leaf1.edx),
            max_enclave_size_not64: not64,
            max_enclave_size_64: in64,
        }
    }

    /// What both can do.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            features: self.features.intersection(other.features),
            miscselect: self.miscselect & other.miscselect,
            attributes: self.attributes.intersection(other.attributes),
            xfrm: self.xfrm & other.xfrm,
            max_enclave_size_not64: self.max_enclave_size_not64.min(other.max_enclave_size_not64),
            max_enclave_size_64: self.max_enclave_size_64.min(other.max_enclave_size_64),
        }
    }

    /// CPUID.12H.0.
    #[must_use]
    pub const fn cpuid_leaf0(&self) -> CpuidResult {
        CpuidResult {
            eax: self.features.bits(),
            ebx: self.miscselect,
            ecx: 0,
            edx: self.max_enclave_size_not64 as u32 | (self.max_enclave_size_64 as u32) << 8,
        }
    }

    /// CPUID.12H.1.
    #[must_use]
    pub const fn cpuid_leaf1(&self) -> CpuidResult {
        CpuidResult {
            eax: self.attributes.bits() as u32,
            ebx: (self.attributes.bits() >> 32) as u32,
            ecx: self.xfrm as u32,
            edx: (self.xfrm >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cpuid_says_is_read_back() {
        let all = Capabilities::default();
        let (leaf0, mut leaf1) = (all.cpuid_leaf0(), all.cpuid_leaf1());
        // Hardware enumerates INIT.
        leaf1.eax |= 1;

        assert_eq!(Capabilities::from_cpuid(leaf0, leaf1), all);
    }

    #[test]
    fn what_both_can_do_is_less_than_what_either_can() {
        let less = Capabilities {
            features: SgxFeatures::SGX1 | SgxFeatures::EDECCSSA,
            xfrm: 0xe7,
            max_enclave_size_64: 56,
            ..Capabilities::default()
        };

        let both = Capabilities::default().intersection(&less);

        let expected = Capabilities { features: SgxFeatures::SGX1, ..Capabilities::default() };
        assert_eq!(both, expected);
        assert_eq!(both.intersection(&Capabilities::NONE), Capabilities::NONE);
    }
}
