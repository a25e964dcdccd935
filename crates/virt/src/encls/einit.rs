//! EINIT with the guest's own launch-control hash (`handle_encls_einit` in Linux's KVM).

use cloister_sgx::LeafOutcome;
use cloister_sgx::layout::{EinitToken, SigStruct};

use super::Refusal;
use super::operand::{aligned, copy, epc_page};
use crate::guest::GuestCpu;
use crate::msr::SgxVcpu;
use crate::vm::SgxVm;

pub(super) fn einit(
    vm: &SgxVm,
    vcpu: &SgxVcpu,
    guest: &mut impl GuestCpu,
) -> Result<LeafOutcome, Refusal> {
    let regs = guest.operands();
    let sigstruct_gva = aligned(guest, regs.rbx, size_of::<SigStruct>() as u64, 4096)?;
    let secs_gva = aligned(guest, regs.rcx, 4096, 4096)?;
    let token_gva = aligned(guest, regs.rdx, size_of::<EinitToken>() as u64, 512)?;
    let (la, secs) = epc_page(vm, guest, secs_gva)?;
    let sigstruct: SigStruct = copy(guest, sigstruct_gva)?;
    let token: EinitToken = copy(guest, token_gva)?;
    let status = vm
        .platform()
        .einit(secs, la, &sigstruct, &token, &vcpu.le_hash(), || guest.event_pending())?;
    Ok(LeafOutcome { status: Some(status), ..LeafOutcome::default() })
}
