//! The SGX side of a virtual processor.

use std::sync::Arc;

use cloister_sgx::encls as leaves;
use cloister_sgx::{EnclsRegs, LeafPort, Stop};

use crate::encls::Action;
use crate::policy::{RdmsrOutcome, SgxMsrs, WrmsrOutcome, encls_exiting, exit_fault};
use crate::port::PolicyPort;
use crate::vm::SgxVm;

/// What a virtual processor has of SGX: its MSRs, and the policy of its machine.
#[derive(Clone, Debug)]
pub struct SgxVcpu {
    vm: Arc<SgxVm>,
    msrs: SgxMsrs,
}

impl SgxVcpu {
    /// A processor of `vm` after reset and firmware, which opts in to SGX, and to launch control
    /// where CPUID has it, and locks FEATURE_CONTROL.
    #[must_use]
    pub fn new(vm: Arc<SgxVm>) -> Self {
        let msrs = SgxMsrs::after_firmware(vm.cpuid(), vm.platform().default_le_hash());
        Self { vm, msrs }
    }

    /// A processor of `vm` after reset, for a guest whose own firmware opts in to SGX:
    /// FEATURE_CONTROL is 0 and not locked.
    #[must_use]
    pub fn after_reset(vm: Arc<SgxVm>) -> Self {
        let msrs = SgxMsrs::after_reset(vm.platform().default_le_hash());
        Self { vm, msrs }
    }

    /// The same on a processor with VMX. See [`SgxMsrs::with_vmx`].
    #[must_use]
    pub fn with_vmx(self) -> Self {
        Self { msrs: self.msrs.with_vmx(), ..self }
    }

    /// Whether FEATURE_CONTROL lets VMXON run outside SMX (SDM Vol. 3C, 23.7).
    #[must_use]
    pub const fn vmx_enabled(&self) -> bool {
        self.msrs.vmx_enabled()
    }

    /// The virtual machine.
    #[must_use]
    pub const fn vm(&self) -> &Arc<SgxVm> {
        &self.vm
    }

    /// Whether FEATURE_CONTROL lets ENCLS run (SDM Vol. 3D, 34.7.1).
    #[must_use]
    pub const fn sgx_enabled(&self) -> bool {
        self.msrs.sgx_enabled()
    }

    /// IA32_SGXLEPUBKEYHASH0-3 as 32 little-endian bytes.
    #[must_use]
    pub fn le_hash(&self) -> [u8; 32] {
        self.msrs.le_hash()
    }

    /// RDMSR.
    #[must_use]
    pub fn rdmsr(&self, index: u32) -> RdmsrOutcome {
        self.msrs.rdmsr(self.vm.cpuid(), index)
    }

    /// WRMSR. After [`WrmsrOutcome::Handled`] the processor is to be told anew what it has of this
    /// value: [`Self::sgx_enabled`], [`Self::vmx_enabled`], [`Self::le_hash`], [`Self::encls_exiting`].
    pub fn wrmsr(&mut self, index: u32, value: u64) -> WrmsrOutcome {
        self.msrs.wrmsr(self.vm.cpuid(), index, value)
    }

    /// ENCLS-exiting bitmap. See [`encls_exiting`].
    #[must_use]
    pub fn encls_exiting(&self) -> u64 {
        encls_exiting(self.vm.cpuid(), &self.msrs, self.vm.platform().capabilities())
    }

    /// Carries out the ENCLS leaf that the processor stopped at, with the operands `regs`, and
    /// counts the exit. `port` is the processor, as for a leaf that it would carry out itself: the
    /// first operand of a leaf while paging is off is #GP(0) there.
    ///
    /// A leaf that the guest does not have faults as [`exit_fault`] says. Of the others, policy has
    /// a say in ECREATE, whose SECS may have what the guest's CPUID says (`handle_encls_ecreate`
    /// and `__handle_encls_ecreate` in Linux's KVM), and in EINIT, whose launch-control hash is the
    /// virtual processor's (`handle_encls_einit`). Neither needs a place of its own in the leaf: it
    /// runs through a [`PolicyPort`], as on a processor that has only what the guest's CPUID
    /// announces.
    pub fn handle_encls(&self, port: &mut impl LeafPort, regs: &EnclsRegs) -> Action {
        self.vm.exits.count(regs.eax);
        if let Some(fault) = exit_fault(self.vm.cpuid(), &self.msrs, regs.eax) {
            return Action::Inject(fault);
        }
        let mut port = PolicyPort::new(self, port);
        match leaves::execute(self.vm.platform(), &mut port, regs) {
            Ok(outcome) => Action::Retire(outcome),
            Err(Stop::Fault(exception)) => Action::Inject(port.capabilities().delivered(exception)),
            Err(Stop::EpcMiss { .. } | Stop::Retry | Stop::Conflict(_)) => match port.exhausted() {
                Some((gpa, reason)) => Action::Exhausted(gpa, reason),
                None => Action::Retry,
            },
        }
    }
}
