//! ENCLS\[ETRACK\] (SDM Vol. 3D, 38.3, ETRACK): begins a tracking cycle.

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{Family, PageType};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RCX: the SECS.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::Supervisor)?;
    let entry = platform.entry(target.index);
    let _lock = entry.try_shared().ok_or(GP)?;
    let _tracking = entry.try_family(Family::Track).ok_or(GP)?;
    if !entry.view().is(PageType::Secs) {
        return Err(target.page_fault().into());
    }
    // All processors must have completed the previous tracking cycle.
    let status = match entry.update_tracking(|tracking| tracking.next_epoch()) {
        Some(_) => SgxStatus::Success,
        None => SgxStatus::PrevTrkIncmpl,
    };
    Ok(LeafOutcome::status(status))
}
