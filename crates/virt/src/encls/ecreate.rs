//! ECREATE under policy (`handle_encls_ecreate` and `__handle_encls_ecreate` in Linux's KVM).

use cloister_sgx::LeafOutcome;
use cloister_sgx::layout::{PageInfo, SecInfo, Secs};

use super::Refusal;
use super::operand::{aligned, copy, epc_page};
use crate::guest::GuestCpu;
use crate::vm::SgxVm;

/// The checks come in the order of the SDM's pseudo-code. Policy needs no place of its own in it:
/// the leaf runs as on a processor that has only what the guest's CPUID announces.
pub(super) fn ecreate(vm: &SgxVm, guest: &mut impl GuestCpu) -> Result<LeafOutcome, Refusal> {
    let regs = guest.operands();
    let pageinfo_gva = aligned(guest, regs.rbx, 32, 32)?;
    let target_gva = aligned(guest, regs.rcx, 4096, 4096)?;
    let (la, target) = epc_page(vm, guest, target_gva)?;
    let pageinfo: PageInfo = copy(guest, pageinfo_gva)?;
    let source_gva = aligned(guest, pageinfo.srcpge.get(), 4096, 4096)?;
    let secinfo_gva = aligned(guest, pageinfo.secinfo.get(), 64, 64)?;
    let ecreate = vm.platform().begin_ecreate(target, la, &pageinfo, || {
        copy::<SecInfo>(guest, secinfo_gva).map_err(Refusal::Guest)
    })?;
    let secs: Secs = copy(guest, source_gva)?;
    ecreate.finish(&vm.cpuid().capabilities, &secs)?;
    Ok(LeafOutcome::default())
}
