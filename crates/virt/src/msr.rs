//! The MSRs of SGX, one set for each virtual processor.

use cloister_x86::msr::{
    FEATURE_CONTROL, FEATURE_CONTROL_LOCK, FEATURE_CONTROL_SGX, FEATURE_CONTROL_SGX_LC,
    FEATURE_CONTROL_VMX, SGX_SVN_STATUS, SGXLEPUBKEYHASH0, SGXLEPUBKEYHASH3, SGXOWNEREPOCH0,
    SGXOWNEREPOCH1,
};

use crate::cpuid::SgxCpuid;

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

/// The SGX state of a virtual processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SgxVcpu {
    feature_control: u64,
    le_hash: [u64; 4],
}

impl SgxVcpu {
    /// A processor after reset, with FEATURE_CONTROL as firmware would leave it: SGX enabled,
    /// launch control as CPUID says, locked. `le_hash` is what IA32_SGXLEPUBKEYHASH0-3 hold.
    #[must_use]
    pub fn new(cpuid: &SgxCpuid, le_hash: &[u8; 32]) -> Self {
        let mut feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_SGX;
        if cpuid.launch_control {
            feature_control |= FEATURE_CONTROL_SGX_LC;
        }
        let (quads, _) = le_hash.as_chunks::<8>();
        let mut hash = [0; 4];
        for (value, bytes) in hash.iter_mut().zip(quads) {
            *value = u64::from_le_bytes(*bytes);
        }
        Self { feature_control, le_hash: hash }
    }

    /// Whether FEATURE_CONTROL lets ENCLS run (SDM Vol. 3D, 36.7.1).
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

    /// RDMSR.
    #[must_use]
    pub fn rdmsr(&self, cpuid: &SgxCpuid, index: u32) -> RdmsrOutcome {
        match index {
            FEATURE_CONTROL => RdmsrOutcome::Value(self.feature_control),
            SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3 if cpuid.launch_control => {
                RdmsrOutcome::Value(self.le_hash[(index - SGXLEPUBKEYHASH0) as usize])
            }
            SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3 => RdmsrOutcome::GeneralProtection,
            SGX_SVN_STATUS => RdmsrOutcome::Value(0),
            _ => RdmsrOutcome::NotHandled,
        }
    }

    /// WRMSR (SDM Vol. 4, table 2-2; Vol. 3D, 38.1.4).
    pub fn wrmsr(&mut self, cpuid: &SgxCpuid, index: u32, value: u64) -> WrmsrOutcome {
        match index {
            FEATURE_CONTROL => {
                let mut valid = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_SGX | FEATURE_CONTROL_VMX;
                if cpuid.launch_control {
                    valid |= FEATURE_CONTROL_SGX_LC;
                }
                if self.feature_control & FEATURE_CONTROL_LOCK != 0 || value & !valid != 0 {
                    return WrmsrOutcome::GeneralProtection;
                }
                self.feature_control = value;
                WrmsrOutcome::Handled
            }
            SGXLEPUBKEYHASH0..=SGXLEPUBKEYHASH3 => {
                let needed = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_SGX_LC;
                if !cpuid.launch_control || self.feature_control & needed != needed {
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
