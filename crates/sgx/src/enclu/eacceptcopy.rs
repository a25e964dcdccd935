//! ENCLU\[EACCEPTCOPY\] (SDM Vol. 3D, 38.4, EACCEPTCOPY): accepts a pending page with contents.

use cloister_x86::Gpr;

use crate::enclu::operand::{in_elrange, page_of_enclave, read_secinfo};
use crate::enclu::{EncluOutcome, report_status};
use crate::epcm::{EpcmFlags, EpcmView, Family, PageType};
use crate::layout::SecInfoFlags;
use crate::operand::{EpcOperand, GP, Privilege};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;
use crate::status::SgxStatus;

/// RBX: SECINFO with the permissions to give; RCX: the pending page; RDX: the page to copy.
pub(super) fn leaf(
    platform: &Platform,
    state: &EnclaveState,
    port: &mut impl LeafPort,
    cpu: &mut ProcessorState,
) -> Result<EncluOutcome, Stop> {
    let enclave = state.active.as_ref().ok_or(GP)?;
    let secinfo_la = in_elrange(enclave, port, cpu.gpr[Gpr::Rbx], 64, 64)?;
    let target_la = in_elrange(enclave, port, cpu.gpr[Gpr::Rcx], 4096, 4096)?;
    let source_la = in_elrange(enclave, port, cpu.gpr[Gpr::Rdx], 4096, 4096)?;
    let operand = EpcOperand::resolve(port, secinfo_la, EpcAccess::Read, Privilege::User)?;
    let target = EpcOperand::resolve(port, target_la, EpcAccess::Write, Privilege::User)?;
    let source = EpcOperand::resolve(port, source_la, EpcAccess::Read, Privilege::User)?;
    let secinfo = read_secinfo(platform, enclave, &operand)?;
    if !secinfo.reserved_is_zero()
        || (!secinfo.has(SecInfoFlags::R) && secinfo.has(SecInfoFlags::W))
        || secinfo.page_type() != Some(PageType::Reg)
    {
        return Err(GP);
    }
    // The source; the pseudo-code's R bit of the destination is taken to be that of the source.
    page_of_enclave(platform, enclave, &source, EpcmFlags::R)?;

    let entry = platform.entry(target.index);
    let pending = |view: &EpcmView| {
        view.is(PageType::Reg)
            && view.flags.contains(EpcmFlags::PENDING)
            && !view.flags.intersects(EpcmFlags::MODIFIED | EpcmFlags::BLOCKED)
            && view.secs == enclave.secs
    };
    if !pending(&entry.view()) {
        report_status(cpu, SgxStatus::PageAttributesMismatch);
        return Ok(EncluOutcome::default());
    }
    let _modify = entry.try_family(Family::Modify).ok_or(GP)?;
    let view = entry.view();
    let read_write = EpcmFlags::R | EpcmFlags::W;
    let permissions = view.flags & (read_write | EpcmFlags::X);
    if !pending(&view) || permissions != read_write || view.address != target_la.0 {
        report_status(cpu, SgxStatus::PageAttributesMismatch);
        return Ok(EncluOutcome::default());
    }
    platform.page(target.index).write(0, &platform.page(source.index).to_bytes());
    let granted = secinfo.permissions();
    let withdrawn = (read_write | EpcmFlags::X).difference(granted);
    entry.modify(granted, withdrawn | EpcmFlags::PENDING, None);
    report_status(cpu, SgxStatus::Success);
    Ok(EncluOutcome::default())
}
