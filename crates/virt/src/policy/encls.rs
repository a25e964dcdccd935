//! Which ENCLS leaves exit, and which of those a guest does not have.

use cloister_sgx::encls::leaf;
use cloister_sgx::{Capabilities, SgxFeatures};
use cloister_x86::Exception;

use super::cpuid::SgxCpuid;
use super::msr::SgxMsrs;

/// ENCLS-exiting bitmap for a virtual processor (`vmx_write_encls_bitmap` in Linux's KVM) on a
/// processor with the capabilities `host`: bit n for leaf n, bit 63 for every leaf from 63 up (SDM
/// Vol. 2A, ENCLS). To be asked again after a write to IA32_FEATURE_CONTROL.
///
/// EINIT always exits: the launch-control hash is the guest's own, never the host's. ECREATE
/// exits where the guest's SECS may have less than the host's. A leaf that the guest's CPUID does
/// not announce exits to become #GP(0), and so does every leaf where firmware did not enable SGX.
#[must_use]
pub fn encls_exiting(cpuid: &SgxCpuid, msrs: &SgxMsrs, host: &Capabilities) -> u64 {
    if !msrs.sgx_enabled() {
        return u64::MAX;
    }
    let policy = |number: u32| match number {
        leaf::EINIT => true,
        leaf::ECREATE => !cpuid.allows_every_secs_of(host),
        _ => false,
    };
    (0..64)
        .filter(|&number| policy(number) || !cpuid.has_encls_leaf(number))
        .fold(0, |bitmap, number| bitmap | 1 << number)
}

/// ENCLV-exiting bitmap for the guest's processors; `None` leaves the control "enable ENCLV
/// exiting" clear, so that ENCLV is #UD: the guest's CPUID does not announce it. Policy has no
/// say in its leaves.
#[must_use]
pub fn enclv_exiting(cpuid: &SgxCpuid) -> Option<u64> {
    cpuid.capabilities.features.contains(SgxFeatures::OVERSUB_ENCLV).then_some(0)
}

/// The exception of an ENCLS leaf that exited and is not carried out, whatever its operands; `None`
/// for ECREATE and EINIT of a guest that has them (`handle_encls` in Linux's KVM).
///
/// What the processor would have checked after the exit comes first (SDM Vol. 2A, ENCLS): without
/// SGX1 the instruction is #UD; a leaf that CPUID does not announce, and FEATURE_CONTROL without
/// SGX, are #GP(0). CPL, real mode and virtual-8086 mode are #UD before any exit. Paging that is
/// off is
/// #GP(0) as well, which is for who reaches the operands to say.
#[must_use]
pub fn exit_fault(cpuid: &SgxCpuid, msrs: &SgxMsrs, number: u32) -> Option<Exception> {
    if !cpuid.capabilities.features.contains(SgxFeatures::SGX1) {
        return Some(Exception::ud());
    }
    // No other leaf exits once SGX is enabled and the leaf is announced.
    let carried_out = matches!(number, leaf::ECREATE | leaf::EINIT);
    let allowed = cpuid.has_encls_leaf(number) && msrs.sgx_enabled() && carried_out;
    (!allowed).then(|| Exception::gp(0))
}
