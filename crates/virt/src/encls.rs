//! ENCLS leaves that exited, carried out under the guest's policy
//! (the work of `handle_encls` in Linux's KVM).

use std::sync::atomic::{AtomicU64, Ordering};

use cloister_sgx::encls::{self, leaf};
use cloister_sgx::{EnclsRegs, LeafOutcome, LeafPort, SgxFeatures, Stop};
use cloister_x86::{Exception, Gpa};

use crate::msr::SgxVcpu;
use crate::policy::PolicyPort;
use crate::pool::EpcExhausted;
use crate::vm::SgxVm;

/// What the VMM does after an exit for ENCLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Apply the outcome to RAX, RBX and RFLAGS and move RIP past the instruction.
    Retire(LeafOutcome),
    /// Inject this exception; RIP stays.
    Inject(Exception),
    /// Run the instruction again.
    Retry,
    /// There is no EPC for this guest-physical page: the host decides what happens to the guest.
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

/// The counts behind [`EnclsExits`], which every processor of a machine adds to.
#[derive(Debug, Default)]
pub(crate) struct ExitCounters {
    ecreate: AtomicU64,
    einit: AtomicU64,
    others: AtomicU64,
}

impl ExitCounters {
    fn count(&self, leaf: u32) {
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

/// Carries out the ENCLS leaf that a virtual processor stopped at, with the operands `regs`. `port`
/// is the processor, as for a leaf that it would carry out itself.
///
/// What the processor would have checked after the exit comes first (SDM Vol. 2A, ENCLS): without
/// SGX1 the instruction is #UD; a leaf that CPUID does not announce, FEATURE_CONTROL without SGX,
/// and paging off are #GP(0). Of these `port` knows of paging: it refuses every operand without.
/// CPL, real mode and virtual-8086 mode are #UD before any exit.
///
/// Of the leaves that are announced, policy has a say in ECREATE, whose SECS may have what the
/// guest's CPUID says (`handle_encls_ecreate` and `__handle_encls_ecreate` in Linux's KVM), and in
/// EINIT, whose launch-control hash is the virtual processor's (`handle_encls_einit`). Neither
/// needs a place of its own in the leaf: it runs through a [`PolicyPort`], as on a processor that
/// has only what the guest's CPUID announces.
pub fn handle(vm: &SgxVm, vcpu: &SgxVcpu, port: &mut impl LeafPort, regs: &EnclsRegs) -> Action {
    vm.exits.count(regs.eax);
    let cpuid = vm.cpuid();
    if !cpuid.capabilities.features.contains(SgxFeatures::SGX1) {
        return Action::Inject(Exception::ud());
    }
    // No other leaf exits once SGX is enabled and the leaf is announced.
    let carried_out = matches!(regs.eax, leaf::ECREATE | leaf::EINIT);
    if !cpuid.has_encls_leaf(regs.eax) || !vcpu.sgx_enabled() || !carried_out {
        return Action::Inject(Exception::gp(0));
    }
    let mut port = PolicyPort::new(vm, vcpu, port);
    match encls::execute(vm.platform(), &mut port, regs) {
        Ok(outcome) => Action::Retire(outcome),
        Err(Stop::Fault(exception)) => Action::Inject(port.capabilities().delivered(exception)),
        Err(Stop::EpcMiss { .. } | Stop::Conflict) => match port.exhausted() {
            Some((gpa, reason)) => Action::Exhausted(gpa, reason),
            None => Action::Retry,
        },
    }
}
