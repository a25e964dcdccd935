//! ENCLS\[EBLOCK\] (SDM Vol. 3D, 38.3, EBLOCK): no new translations to a page.

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmFlags, PageType};
use crate::operand::{EpcOperand, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RCX: the EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::Supervisor)?;
    let entry = platform.entry(target.index);
    let Some(_lock) = entry.try_shared() else {
        return Ok(LeafOutcome::status(SgxStatus::EpcPageConflict));
    };
    let view = entry.view();
    if !view.valid() {
        return Ok(LeafOutcome::status(SgxStatus::PgInvld));
    }
    match view.page_type {
        PageType::Secs => return Ok(LeafOutcome::status(SgxStatus::PgIsSecs)),
        PageType::Va => return Ok(LeafOutcome::status(SgxStatus::NotBlockable)),
        PageType::Reg | PageType::Tcs | PageType::Trim | PageType::SsFirst | PageType::SsRest => {}
    }
    // BLOCKED first and the epoch after it: a processor that enters in between counts as one
    // that may still have a translation, which is on the safe side.
    if entry.modify(EpcmFlags::BLOCKED, EpcmFlags::empty(), None).contains(EpcmFlags::BLOCKED) {
        return Ok(LeafOutcome::status(SgxStatus::BlkState));
    }
    entry.set_tracked_epoch(platform.entry(view.secs).tracking().epoch());
    Ok(LeafOutcome::status(SgxStatus::Success))
}
