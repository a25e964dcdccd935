//! ENCLU\[EACCEPT\] (SDM Vol. 3D, 38.4, EACCEPT): the enclave agrees to a change of a page.

use cloister_x86::{Gpr, La};

use crate::attributes::AttributeFlags;
use crate::enclu::operand::{enclave_secinfo, in_elrange};
use crate::enclu::{EncluOutcome, report_status};
use crate::epcm::{EpcmFlags, EpcmView, Family, PageType};
use crate::layout::{SecInfo, SecInfoFlags, Tcs, TcsFlags, tcs};
use crate::operand::{EpcOperand, GP, Privilege};
use crate::paging::secinfo_of;
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::{ActiveEnclave, EnclaveState};
use crate::status::SgxStatus;

/// RBX: SECINFO, the state that the enclave expects; RCX: the page.
pub(super) fn leaf(
    platform: &Platform,
    state: &EnclaveState,
    port: &mut impl LeafPort,
    cpu: &mut ProcessorState,
) -> Result<EncluOutcome, Stop> {
    let enclave = state.active.as_ref().ok_or(GP)?;
    let secinfo = enclave_secinfo(platform, enclave, port, cpu.gpr[Gpr::Rbx])?;
    let la = in_elrange(enclave, port, cpu.gpr[Gpr::Rcx], 4096, 4096)?;
    let target = EpcOperand::resolve(port, la, EpcAccess::Read, Privilege::User)?;
    if !request_is_legal(&secinfo) {
        return Err(GP);
    }
    let entry = platform.entry(target.index);
    let acceptable = |view: &EpcmView| {
        view.valid()
            && !view.flags.contains(EpcmFlags::BLOCKED)
            && !matches!(view.page_type, PageType::Secs | PageType::Va)
            && view.secs == enclave.secs
    };
    if !acceptable(&entry.view()) {
        return Err(target.page_fault().into());
    }
    let _lock = entry.try_shared().ok_or(GP)?;
    let _modify = entry.try_family(Family::Modify).ok_or(GP)?;
    let view = entry.view();
    if !view.valid() || view.secs != enclave.secs {
        return Err(target.page_fault().into());
    }
    let status = accept(platform, enclave, &target, la, &secinfo, &view)?;
    report_status(cpu, status);
    Ok(EncluOutcome::default())
}

/// "The combination of requested PT, PENDING, and MODIFIED is legal", without CET.
fn request_is_legal(secinfo: &SecInfo) -> bool {
    let pending = secinfo.has(SecInfoFlags::PENDING);
    let modified = secinfo.has(SecInfoFlags::MODIFIED);
    let restricted = secinfo.has(SecInfoFlags::PR);
    match secinfo.page_type() {
        Some(PageType::Reg) => (restricted || pending) && !modified,
        Some(PageType::Tcs | PageType::Trim) => !restricted && !pending && modified,
        _ => false,
    }
}

/// From the comparison of the request with the page on.
fn accept(
    platform: &Platform,
    enclave: &ActiveEnclave,
    target: &EpcOperand,
    la: La,
    secinfo: &SecInfo,
    view: &EpcmView,
) -> Result<SgxStatus, Stop> {
    // PR is not compared.
    let compared = !SecInfoFlags::PR.bits();
    if view.address != la.0
        || secinfo_of(view).flags.get() & compared != secinfo.flags.get() & compared
    {
        return Ok(SgxStatus::PageAttributesMismatch);
    }
    let entry = platform.entry(target.index);
    // A page that was only added needs no tracking: nobody could have used it before.
    if view.flags.intersects(EpcmFlags::MODIFIED | EpcmFlags::PR)
        && !platform.entry(view.secs).tracking().tracked(entry.tracked_epoch())
    {
        return Ok(SgxStatus::NotTracked);
    }
    if view.page_type == PageType::Tcs {
        check_tcs(platform, enclave, target)?;
    }
    entry.modify(
        EpcmFlags::empty(),
        EpcmFlags::PENDING | EpcmFlags::MODIFIED | EpcmFlags::PR,
        None,
    );
    Ok(SgxStatus::Success)
}

/// The contents of a page that becomes a TCS.
fn check_tcs(
    platform: &Platform,
    enclave: &ActiveEnclave,
    target: &EpcOperand,
) -> Result<(), Stop> {
    let page = platform.page(target.index);
    if page.to_bytes()[tcs::LIMIT..].iter().any(|&byte| byte != 0) {
        return Err(GP);
    }
    let tcs: Tcs = super::entry::read_tcs(page);
    if tcs.flags.get() & TcsFlags::DBGOPTIN.bits() != 0
        || tcs.cssa.get() >= tcs.nssa.get()
        || tcs.aep.get() != 0
        || tcs.state.get() != 0
    {
        return Err(GP);
    }
    if !enclave.attributes.has(AttributeFlags::MODE64BIT)
        && (tcs.fslimit.get() & 0xfff != 0xfff || tcs.gslimit.get() & 0xfff != 0xfff)
    {
        return Err(GP);
    }
    Ok(())
}
