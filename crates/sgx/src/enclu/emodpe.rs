//! ENCLU\[EMODPE\] (SDM Vol. 3D, 38.4, EMODPE): extends the permissions of a page.

use cloister_x86::Gpr;

use crate::enclu::EncluOutcome;
use crate::enclu::operand::{check_secinfo, in_elrange, read_secinfo};
use crate::epcm::{EpcmFlags, EpcmView, Family, PageType};
use crate::layout::SecInfoFlags;
use crate::operand::{EpcOperand, GP, Privilege};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;

/// RBX: SECINFO with the permissions to add; RCX: the page.
pub(super) fn leaf(
    platform: &Platform,
    state: &EnclaveState,
    port: &mut impl LeafPort,
    cpu: &ProcessorState,
) -> Result<EncluOutcome, Stop> {
    let enclave = state.active.as_ref().ok_or(GP)?;
    let secinfo_la = in_elrange(enclave, port, cpu.gpr[Gpr::Rbx], 64, 64)?;
    let la = in_elrange(enclave, port, cpu.gpr[Gpr::Rcx], 4096, 4096)?;
    let source = EpcOperand::resolve(port, secinfo_la, EpcAccess::Read, Privilege::User)?;
    let target = EpcOperand::resolve(port, la, EpcAccess::Read, Privilege::User)?;
    let secinfo = read_secinfo(platform, enclave, &source)?;
    check_secinfo(&secinfo)?;

    let entry = platform.entry(target.index);
    let extendable = |view: &EpcmView| {
        view.is(PageType::Reg)
            && !view.flags.intersects(EpcmFlags::PENDING | EpcmFlags::MODIFIED)
            && view.secs == enclave.secs
    };
    let view = entry.view();
    if !extendable(&view) || view.flags.contains(EpcmFlags::BLOCKED) {
        return Err(target.page_fault().into());
    }
    let _modify = entry.try_family(Family::Modify).ok_or(GP)?;
    let view = entry.view();
    if !extendable(&view) || view.address != la.0 {
        return Err(target.page_fault().into());
    }
    // A page must not become writable without being readable.
    if !view.flags.contains(EpcmFlags::R)
        && !secinfo.has(SecInfoFlags::R)
        && secinfo.has(SecInfoFlags::W)
    {
        return Err(GP);
    }
    entry.modify(secinfo.permissions(), EpcmFlags::empty(), None);
    Ok(EncluOutcome::default())
}
