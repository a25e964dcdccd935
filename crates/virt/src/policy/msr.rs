//! The MSRs of SGX, one set for each virtual processor.

use cloister_sgx::SgxFeatures;
use cloister_x86::msr::{
    FEATURE_CONTROL, FEATURE_CONTROL_LOCK, FEATURE_CONTROL_SGX, FEATURE_CONTROL_SGX_LC,
    FEATURE_CONTROL_VMX, SGX_SVN_STATUS, SGXLEPUBKEYHASH0, SGXLEPUBKEYHASH3, SGXOWNEREPOCH0,
    SGXOWNEREPOCH1,
};

use super::cpuid::SgxCpuid;

/// What reading an MSR yields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RdmsrOutcome {
    /// The value.
    Value(u64),
    /// The MSR is none of SGX's.
    NotHandled,
    /// #GP(0).
    GeneralProtection,
}

/// What writing an MSR yields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrmsrOutcome {
    /// Written.
    Handled,
    /// The MSR is none of SGX's.
    NotHandled,
    /// #GP(0).
    GeneralProtection,
}

/// The MSRs of SGX of a virtual processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SgxMsrs {
    feature_control: u64,
    /// FEATURE_CONTROL has the bit of VMX outside SMX.
    vmx: bool,
    le_hash: [u64; 4],
}

impl SgxMsrs {
    /// Those of a processor after reset, for a guest whose own firmware opts in to SGX:
    /// FEATURE_CONTROL is 0 and not locked. `le_hash` is what IA32_SGXLEPUBKEYHASH0-3 hold.
    #[must_use]
    pub fn after_reset(le_hash: &[u8; 32]) -> Self {
        let (quads, _) = le_hash.as_chunks::<8>();
        let mut hash = [0; 4];
        for (value, bytes) in hash.iter_mut().zip(quads) {
            *value = u64::from_le_bytes(*bytes);
        }
        Self { feature_control: 0, vmx: false, le_hash: hash }
    }

    /// Those of a processor after reset and firmware, which opts in to SGX, and to launch control
    /// where CPUID has it, and locks FEATURE_CONTROL.
    #[must_use]
    pub fn after_firmware(cpuid: &SgxCpuid, le_hash: &[u8; 32]) -> Self {
        let mut feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_SGX;
        if cpuid.launch_control {
            feature_control |= FEATURE_CONTROL_SGX_LC;
        }
        Self { feature_control, ..Self::after_reset(le_hash) }
    }

    /// The same on a processor with VMX, which firmware that locked FEATURE_CONTROL has opted in to as
    /// well.
    #[must_use]
    pub const fn with_vmx(self) -> Self {
        let locked = self.feature_control & FEATURE_CONTROL_LOCK != 0;
        let enabled = if locked { FEATURE_CONTROL_VMX } else { 0 };
        Self { feature_control: self.feature_control | enabled, vmx: true, ..self }
    }

    /// Whether FEATURE_CONTROL lets VMXON run outside SMX (SDM Vol. 3C, 23.7).
    #[must_use]
    pub const fn vmx_enabled(&self) -> bool {
        let needed = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
        self.feature_control & needed == needed
    }

    /// Whether FEATURE_CONTROL lets ENCLS run (SDM Vol. 3D, 34.7.1).
    #[must_use]
    pub const fn sgx_enabled(&self) -> bool {
        let needed = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_SGX;
        self.feature_control & needed == needed
    }

    /// IA32_SGXLEPUBKEYHASH0-3 as 32 little-endian bytes.
    #[must_use]
    pub fn le_hash(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, value) in bytes.chunks_exact_mut(8).zip(self.le_hash) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// RDMSR on a processor whose CPUID says `cpuid`.
    #[must_use]
    pub fn rdmsr(&self, cpuid: &SgxCpuid, index: u32) -> RdmsrOutcome {
        match index {
            FEATURE_CONTROL => RdmsrOutcome::Value(self.feature_control),
            SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3 if has_le_hash(cpuid) => {
                RdmsrOutcome::Value(self.le_hash[(index - SGXLEPUBKEYHASH0) as usize])
            }
            // No threshold for authenticated code modules, which only SMX loads
            // (SDM Vol. 3D, 39.11.3).
            SGX_SVN_STATUS if has_sgx1(cpuid) => RdmsrOutcome::Value(0),
            // The owner epoch is the platform's secret.
            SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3
            | SGX_SVN_STATUS
            | SGXOWNEREPOCH0
            | SGXOWNEREPOCH1 => RdmsrOutcome::GeneralProtection,
            _ => RdmsrOutcome::NotHandled,
        }
    }

    /// WRMSR on a processor whose CPUID says `cpuid`.
    pub fn wrmsr(&mut self, cpuid: &SgxCpuid, index: u32, value: u64) -> WrmsrOutcome {
        match index {
            FEATURE_CONTROL => {
                // SDM Vol. 4, table 2-2, IA32_FEATURE_CONTROL: #GP(0) once locked, and for bits
                // of what the processor does not have. SMX and LMCE are not there.
                let mut valid = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_SGX;
                if cpuid.launch_control {
                    valid |= FEATURE_CONTROL_SGX_LC;
                }
                if self.vmx {
                    valid |= FEATURE_CONTROL_VMX;
                }
                if self.feature_control & FEATURE_CONTROL_LOCK != 0 || value & !valid != 0 {
                    return WrmsrOutcome::GeneralProtection;
                }
                self.feature_control = value;
                WrmsrOutcome::Handled
            }
            SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3 => {
                // SDM Vol. 3D, 39.2.2: locked with LE_WR set. KVM lets them be written before the
                // lock as well, for what activation by firmware does on hardware.
                let needed = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_SGX_LC;
                if !has_le_hash(cpuid) || self.feature_control & needed != needed {
                    return WrmsrOutcome::GeneralProtection;
                }
                self.le_hash[(index - SGXLEPUBKEYHASH0) as usize] = value;
                WrmsrOutcome::Handled
            }
            SGXOWNEREPOCH0 | SGXOWNEREPOCH1 | SGX_SVN_STATUS => WrmsrOutcome::GeneralProtection,
            _ => WrmsrOutcome::NotHandled,
        }
    }
}

const fn has_sgx1(cpuid: &SgxCpuid) -> bool {
    cpuid.capabilities.features.contains(SgxFeatures::SGX1)
}

/// IA32_SGXLEPUBKEYHASH0-3 exist with SGX1 and SGX_LC (SDM Vol. 3D, 39.2.2).
const fn has_le_hash(cpuid: &SgxCpuid) -> bool {
    has_sgx1(cpuid) && cpuid.launch_control
}
