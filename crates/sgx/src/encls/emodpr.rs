//! ENCLS\[EMODPR\] (SDM Vol. 3D, 38.3, EMODPR): restricts the permissions of a page.

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmFlags, Family, PageType};
use crate::layout::{SecInfo, SecInfoFlags, Secs};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned, read_struct};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RBX: SECINFO; RCX: the EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let secinfo_la = linear_aligned(port, regs.rbx, 64, 64)?;
    let target_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, target_la, EpcAccess::Write, Privilege::Supervisor)?;
    let secinfo: SecInfo = read_struct(port, secinfo_la)?;
    if !secinfo.reserved_is_zero()
        || (!secinfo.has(SecInfoFlags::R) && secinfo.has(SecInfoFlags::W))
    {
        return Err(GP);
    }
    let entry = platform.entry(target.index);
    let _lock = entry.try_shared().ok_or(GP)?;
    let view = entry.view();
    if !view.valid() {
        return Err(target.page_fault().into());
    }
    let Some(_modify) = entry.try_family(Family::Modify) else {
        return Ok(LeafOutcome::status(SgxStatus::EpcPageConflict));
    };
    let view = entry.view();
    if view.flags.intersects(EpcmFlags::PENDING | EpcmFlags::MODIFIED) {
        return Ok(LeafOutcome::status(SgxStatus::PageNotModifiable));
    }
    if view.page_type != PageType::Reg {
        return Err(target.page_fault().into());
    }
    let flags = platform.page(view.secs).load(Secs::ATTRIBUTES);
    if flags & AttributeFlags::INIT.bits() == 0 {
        return Err(GP);
    }
    let all = EpcmFlags::R | EpcmFlags::W | EpcmFlags::X;
    entry.modify(EpcmFlags::PR, all.difference(secinfo.permissions()), None);
    // EACCEPT asks whether everyone who may hold the old permissions has left since.
    entry.set_tracked_epoch(platform.entry(view.secs).tracking().epoch());
    Ok(LeafOutcome::status(SgxStatus::Success))
}
