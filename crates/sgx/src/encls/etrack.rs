//! ENCLS\[ETRACK\] (SDM Vol. 3D, 38.3, ETRACK): begins a tracking cycle.

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmEntry, Family, PageType};
use crate::operand::{EpcOperand, GP, Privilege, conflict, linear_aligned};
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
    // Tables 38-46 and 38-47.
    let _lock = entry.try_shared().ok_or(GP)?;
    let _tracking = entry.try_family(Family::Track).ok_or_else(|| conflict(port))?;
    if !entry.view().is(PageType::Secs) {
        return Err(target.page_fault().into());
    }
    begin_cycle(port, entry)
}

/// The new cycle of the enclave with SECS `entry`, whose tracking facility the caller holds. All
/// processors must have completed the previous one.
pub(super) fn begin_cycle(port: &impl LeafPort, entry: &EpcmEntry) -> Result<LeafOutcome, Stop> {
    if entry.update_tracking(|tracking| tracking.next_epoch()).is_some() {
        return Ok(LeafOutcome::status(SgxStatus::Success));
    }
    if port.epc_virtualization() {
        return Err(Stop::Conflict);
    }
    Ok(LeafOutcome::status(SgxStatus::PrevTrkIncmpl))
}
