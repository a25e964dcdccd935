//! What the owner of a processor decides.

use cloister_sgx::{Capabilities, SgxFeatures};
use cloister_x86::regs::Xfeatures;

/// What a processor claims to be able to do, as far as execution depends on it. CPUID, which the
/// machine answers, must agree.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Bits that XCR0 may have; without AVX there, the processor has none of the instructions that
    /// need it.
    pub xcr0: Xfeatures,
    /// Physical-address width in bits, 36 to 52.
    pub physical_bits: u32,
    /// CPUID.80000001H:EDX bit 20: EFER.NXE can be set.
    pub execute_disable: bool,
    /// CPUID.1:ECX.VMX.
    pub vmx: bool,
    /// What CPUID.12H announces; without SGX1 ENCLS and ENCLU are #UD. Part of what the
    /// platform can do.
    pub sgx: Capabilities,
}

impl Default for Features {
    fn default() -> Self {
        let xcr0 = Xfeatures::X87 | Xfeatures::SSE | Xfeatures::AVX;
        Self { xcr0, physical_bits: 46, execute_disable: true, vmx: false, sgx: Capabilities::NONE }
    }
}

impl Features {
    /// Whether the SGX leaves `leaves` are announced.
    pub(crate) const fn has_sgx(&self, leaves: SgxFeatures) -> bool {
        self.sgx.features.contains(leaves)
    }
}

/// What the owner of a processor decides: what it is, the registers that are the owner's to
/// answer for, and which instructions come to the owner. Neither reset nor INIT changes any of it.
#[derive(Clone, Debug)]
pub struct Controls {
    /// What the processor claims to be.
    pub features: Features,
    /// IA32_FEATURE_CONTROL is locked with SGX enabled: ENCLU runs. The MSR is the owner's.
    pub sgx_enabled: bool,
    /// IA32_FEATURE_CONTROL is locked with VMX outside SMX enabled: VMXON runs.
    pub vmx_enabled: bool,
    /// IA32_SGXLEPUBKEYHASH0-3 as 32 little-endian bytes, the platform's default after reset. The
    /// MSRs are the owner's, which keeps this up to date.
    pub le_pubkey_hash: [u8; 32],
    /// ENCLS-exiting bitmap: leaf n of ENCLS exits where bit n is set (bit 63: leaves 63 and up)
    /// (SDM Vol. 3C, 24.6.16).
    pub encls_exiting: u64,
    /// The VM-execution control "enable ENCLV exiting" with its bitmap, as for ENCLS. While it is
    /// clear (`None`), ENCLV is #UD.
    pub enclv_exiting: Option<u64>,
    /// The VM-execution control "enable EPC virtualization extensions": an SECS with virtual
    /// children counts as one with children, and conflicts of leaves are the owner's affair.
    pub epc_virtualization: bool,
}

impl Controls {
    /// No leaf exits, and SGX and VMX are off until the owner enables them.
    #[must_use]
    pub(crate) const fn new(features: Features, le_pubkey_hash: [u8; 32]) -> Self {
        Self {
            features,
            sgx_enabled: false,
            vmx_enabled: false,
            le_pubkey_hash,
            encls_exiting: 0,
            enclv_exiting: None,
            epc_virtualization: false,
        }
    }
}
