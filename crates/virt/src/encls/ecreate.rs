//! ECREATE under policy (`handle_encls_ecreate` and `__handle_encls_ecreate` in Linux's KVM).

use cloister_sgx::layout::{PageInfo, SecInfo, Secs};
use cloister_sgx::{AttributeFlags, LeafOutcome};
use cloister_x86::Exception;

use super::Refusal;
use super::operand::{aligned, copy, epc_page};
use crate::cpuid::SgxCpuid;
use crate::guest::GuestCpu;
use crate::vm::SgxVm;

pub(super) fn ecreate(vm: &SgxVm, guest: &mut impl GuestCpu) -> Result<LeafOutcome, Refusal> {
    let regs = guest.operands();
    let pageinfo_gva = aligned(guest, regs.rbx, 32, 32)?;
    let target_gva = aligned(guest, regs.rcx, 4096, 4096)?;
    let pageinfo: PageInfo = copy(guest, pageinfo_gva)?;
    let source_gva = aligned(guest, pageinfo.srcpge.get(), 4096, 4096)?;
    let secinfo_gva = aligned(guest, pageinfo.secinfo.get(), 64, 64)?;
    let (la, target) = epc_page(vm, guest, target_gva)?;
    let secinfo: SecInfo = copy(guest, secinfo_gva)?;
    let secs: Secs = copy(guest, source_gva)?;
    if !policy_allows(vm.cpuid(), &secs) {
        return Err(Refusal::Leaf(Exception::gp(0)));
    }
    vm.platform().ecreate(target, la, &pageinfo, &secinfo, &secs).map_err(Refusal::Leaf)?;
    Ok(LeafOutcome::default())
}

/// Whether the enclave keeps within what the guest's CPUID announces: MISCSELECT, ATTRIBUTES (the
/// provisioning key among them), XFRM and size.
fn policy_allows(cpuid: &SgxCpuid, secs: &Secs) -> bool {
    let capabilities = &cpuid.capabilities;
    let attributes = secs.attributes;
    let largest = if attributes.has(AttributeFlags::MODE64BIT) {
        capabilities.max_enclave_size_64
    } else {
        capabilities.max_enclave_size_not64
    };
    secs.miscselect.get() & !capabilities.miscselect == 0
        && attributes.flags.get() & !capabilities.attributes.bits() == 0
        && attributes.xfrm.get() & !capabilities.xfrm == 0
        && secs.size.get() < 1u64.checked_shl(u32::from(largest)).unwrap_or(u64::MAX)
}
