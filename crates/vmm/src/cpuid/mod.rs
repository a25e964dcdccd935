//! What CPUID says in a guest: a model of processor, what the machine makes of it, and the guest's
//! SGX. The SGX leaves, 12H and the SGX bits of leaf 7, are the virtualization layer's.

mod filter;
mod host;
mod model;
#[cfg(test)]
mod tests;

use cloister_x86::cpuid::{CpuidResult, LEAF_SGX};

use crate::accel::GuestSgx;

pub use filter::{CpuidState, CpuidTable};
pub use host::HostCpu;
pub use model::{ARCH_CAPABILITIES, CpuModel, TSC_HZ};

/// What CPUID says in a guest: the leaves of its machine, and its SGX.
#[derive(Clone, Debug)]
pub struct GuestCpuid {
    table: CpuidTable,
    sgx: Option<GuestSgx>,
}

impl GuestCpuid {
    /// The leaves of `table`, and `sgx` if the guest has any.
    #[must_use]
    pub const fn new(table: CpuidTable, sgx: Option<GuestSgx>) -> Self {
        Self { table, sgx }
    }

    /// What CPUID returns.
    #[must_use]
    pub fn query(&self, leaf: u32, subleaf: u32, state: &CpuidState) -> CpuidResult {
        let result = self.table.query(leaf, subleaf, state);
        match &self.sgx {
            // All leaves that tell of SGX come after leaf 2.
            Some(sgx) if !state.leaves_limited => sgx.amend_cpuid(leaf, subleaf, result),
            _ => result,
        }
    }

    /// Every leaf and subleaf that is not all zero, each once, and whether the leaf looks at ECX.
    #[must_use]
    pub fn leaves(&self) -> Vec<(u32, u32, bool)> {
        let mut leaves = self.table.leaves();
        if self.sgx.is_some() {
            let told =
                |&subleaf: &u32| self.query_at_reset(LEAF_SGX, subleaf) != CpuidResult::default();
            leaves.extend((0..).take_while(told).map(|subleaf| (LEAF_SGX, subleaf, true)));
        }
        leaves
    }

    /// What CPUID returns on the bootstrap processor after reset. Leaves that tell of SGX are the
    /// same on every processor at any time.
    #[must_use]
    pub fn query_at_reset(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.query(leaf, subleaf, &CpuidState::at_reset(0))
    }
}
