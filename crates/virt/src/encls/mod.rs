//! ENCLS leaves that exited, carried out under the guest's policy
//! (the work of `handle_encls` in Linux's KVM).

mod ecreate;
mod einit;
mod operand;

use cloister_sgx::{LeafOutcome, encls::leaf};
use cloister_x86::{Exception, Gpa};

use crate::guest::{GuestCpu, GuestFault};
use crate::msr::SgxVcpu;
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

/// Why a leaf did not retire.
enum Refusal {
    /// A fault of the leaf's operands as the guest's own processor raises it.
    Guest(GuestFault),
    /// A fault that the leaf raised on the host.
    Leaf(Exception),
    /// No EPC for this page.
    Exhausted(Gpa, EpcExhausted),
}

impl From<GuestFault> for Refusal {
    fn from(fault: GuestFault) -> Self {
        Self::Guest(fault)
    }
}

impl From<Exception> for Refusal {
    fn from(exception: Exception) -> Self {
        Self::Leaf(exception)
    }
}

/// Carries out the ENCLS leaf that `guest` stopped at.
pub fn handle(vm: &SgxVm, vcpu: &SgxVcpu, guest: &mut impl GuestCpu) -> Action {
    let number = guest.operands().eax;
    if !vm.cpuid().has_encls_leaf(number) {
        return Action::Inject(Exception::ud());
    }
    if !vcpu.sgx_enabled() {
        return Action::Inject(Exception::gp(0));
    }
    let outcome = match number {
        leaf::ECREATE => ecreate::ecreate(vm, guest),
        leaf::EINIT => einit::einit(vm, vcpu, guest),
        // No other leaf exits once SGX is enabled and the leaf is announced.
        _ => return Action::Inject(Exception::gp(0)),
    };
    match outcome {
        Ok(outcome) => Action::Retire(outcome),
        Err(Refusal::Guest(GuestFault::Exception(exception))) => Action::Inject(exception),
        Err(Refusal::Guest(GuestFault::Retry)) => Action::Retry,
        Err(Refusal::Leaf(exception)) => {
            Action::Inject(vm.cpuid().capabilities.delivered(exception))
        }
        Err(Refusal::Exhausted(gpa, reason)) => Action::Exhausted(gpa, reason),
    }
}
