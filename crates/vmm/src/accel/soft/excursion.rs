//! A software processor that stands in for one without SGX: see docs/accelerators.md.

use std::time::Duration;

use cloister_virt::{RdmsrOutcome, WrmsrOutcome};

use super::vcpu::SoftVcpu;

impl SoftVcpu {
    /// See [`cloister_cpu::Vcpu::undo_exception`].
    pub(in crate::accel) fn undo_exception(&mut self) -> bool {
        self.vcpu.undo_exception()
    }

    /// Has [`Vcpu::run`](crate::accel::Vcpu::run) run the leaf at RIP and what it enters, until
    /// [`VmEvent::Debug`](crate::accel::VmEvent::Debug), or [`VmEvent::Interrupted`](crate::accel::VmEvent::Interrupted)
    /// about `limit` from now. The time stamp counter is at `tsc`.
    pub(in crate::accel) fn begin_excursion(&mut self, limit: Duration, tsc: u64) {
        self.vcpu.set_tsc(tsc);
        self.vcpu.begin_excursion(limit);
    }

    /// Ends it; inside an enclave by an AEX.
    pub(in crate::accel) fn end_excursion(&mut self) {
        self.vcpu.end_excursion();
    }

    /// The bytes of the last device access.
    pub(in crate::accel) fn access_data(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.data.len());
        &mut self.data[..len]
    }

    /// RDMSR of one of SGX's; `None` is #GP(0).
    pub(in crate::accel) fn sgx_rdmsr(&self, index: u32) -> Option<u64> {
        match self.sgx.as_ref()?.rdmsr(index) {
            RdmsrOutcome::Value(value) => Some(value),
            RdmsrOutcome::NotHandled | RdmsrOutcome::GeneralProtection => None,
        }
    }

    /// WRMSR of one of SGX's; `false` is #GP(0).
    pub(in crate::accel) fn sgx_wrmsr(&mut self, index: u32, value: u64) -> bool {
        let written = self.sgx.as_mut().map(|sgx| sgx.wrmsr(index, value));
        self.update_sgx();
        matches!(written, Some(WrmsrOutcome::Handled))
    }
}
