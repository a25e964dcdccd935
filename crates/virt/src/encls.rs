//! ENCLS leaves that exited: what becomes of one, and how many there were.

use std::sync::atomic::{AtomicU64, Ordering};

use cloister_sgx::LeafOutcome;
use cloister_sgx::encls::leaf;
use cloister_x86::{Exception, Gpa};

use crate::epc::EpcExhausted;

/// What the VMM does after an exit for ENCLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Apply the outcome to RAX, RBX and RFLAGS and move RIP past the instruction.
    Retire(LeafOutcome),
    /// Inject this exception; RIP stays.
    Inject(Exception),
    /// Run the instruction again.
    Retry,
    /// No EPC is left for this guest-physical page: the host decides what happens to the guest.
    Exhausted(Gpa, EpcExhausted),
}

/// How many ENCLS leaves of a machine exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EnclsExits {
    /// ECREATE, which exits where policy may have a say in the SECS.
    pub ecreate: u64,
    /// EINIT, which always exits.
    pub einit: u64,
    /// Leaves that only exit to fault: those that CPUID does not announce, or all while SGX is off.
    pub others: u64,
}

/// The counts that [`EnclsExits`] shows, which every processor of a machine adds to.
#[derive(Debug, Default)]
pub(crate) struct ExitCounters {
    ecreate: AtomicU64,
    einit: AtomicU64,
    others: AtomicU64,
}

impl ExitCounters {
    pub(crate) fn count(&self, leaf: u32) {
        let counter = match leaf {
            leaf::ECREATE => &self.ecreate,
            leaf::EINIT => &self.einit,
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> EnclsExits {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EnclsExits {
            ecreate: load(&self.ecreate),
            einit: load(&self.einit),
            others: load(&self.others),
        }
    }
}
