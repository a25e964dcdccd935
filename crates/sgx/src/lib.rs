//! The architectural model of Intel SGX.

/// Index of an EPC page within its [`Platform`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EpcIndex(pub u32);

/// The enclave side of one logical processor.
#[derive(Debug, Default)]
pub struct EnclaveState;

impl EnclaveState {
    /// CR_ENCLAVE_MODE.
    #[must_use]
    pub const fn in_enclave(&self) -> bool {
        false
    }
}

/// An SGX platform.
#[derive(Debug)]
pub struct Platform;

impl Platform {
    /// EPC pages of all sections.
    #[must_use]
    pub const fn pages(&self) -> usize {
        0
    }
}
