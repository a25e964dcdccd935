//! ENCLS\[EMODT\] (SDM Vol. 3D, 38.3, EMODT): changes the type of a page.

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmFlags, Family, PageType};
use crate::layout::{SecInfo, Secs};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned, read_struct, reported_conflict};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RBX: SECINFO with PT_TCS or PT_TRIM; RCX: the EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let secinfo_la = linear_aligned(port, regs.rbx, 64, 64)?;
    let target_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, target_la, EpcAccess::Write, Privilege::Supervisor)?;
    let secinfo: SecInfo = read_struct(port, secinfo_la)?;
    let new_type = match secinfo.page_type() {
        Some(page_type @ (PageType::Tcs | PageType::Trim)) if secinfo.reserved_is_zero() => {
            page_type
        }
        _ => return Err(GP),
    };
    let entry = platform.entry(target.index);
    let Some(_lock) = entry.try_exclusive() else {
        return reported_conflict(port, target_la);
    };
    if !entry.view().valid() {
        return Err(target.page_fault().into());
    }
    let Some(_modify) = entry.try_family(Family::Modify) else {
        return Ok(LeafOutcome::status(SgxStatus::EpcPageConflict));
    };
    let view = entry.view();
    let changeable = match view.page_type {
        PageType::Reg => true,
        PageType::Tcs | PageType::SsFirst | PageType::SsRest => new_type == PageType::Trim,
        PageType::Secs | PageType::Va | PageType::Trim => false,
    };
    if !changeable {
        return Err(target.page_fault().into());
    }
    if view.flags.intersects(EpcmFlags::PENDING | EpcmFlags::MODIFIED) {
        return Ok(LeafOutcome::status(SgxStatus::PageNotModifiable));
    }
    let flags = platform.page(view.secs).load(Secs::ATTRIBUTES);
    if flags & AttributeFlags::INIT.bits() == 0 {
        return Err(GP);
    }
    let cleared = EpcmFlags::PR | EpcmFlags::R | EpcmFlags::W | EpcmFlags::X;
    entry.modify(EpcmFlags::MODIFIED, cleared, Some(new_type));
    // EACCEPT asks whether everyone who may still use the page as what it was has left since.
    entry.set_tracked_epoch(platform.entry(view.secs).tracking().epoch());
    Ok(LeafOutcome::status(SgxStatus::Success))
}
