//! ENCLS\[ETRACK\] (SDM Vol. 3D, 38.3, ETRACK): begins a tracking cycle.

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epc::EpcIndex;
use crate::epcm::{Family, PageType};
use crate::layout::Secs;
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{Conflict, EpcAccess, LeafPort, Stop};
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
    let Some(_tracking) = entry.try_family(Family::Track) else {
        return Err(tracking_conflict(platform, port, target.index).unwrap_or(GP));
    };
    if !entry.view().is(PageType::Secs) {
        return Err(target.page_fault().into());
    }
    begin_cycle(platform, port, target.index)
}

/// The exit where another leaf holds the tracking facility of the enclave with this SECS; `None` without
/// [`LeafPort::epc_virtualization`].
pub(super) fn tracking_conflict(
    platform: &Platform,
    port: &impl LeafPort,
    secs: EpcIndex,
) -> Option<Stop> {
    let context = platform.page(secs).load(Secs::ENCLAVECONTEXT);
    let exits = port.epc_virtualization();
    exits.then_some(Stop::Conflict(Conflict::TrackingResource { context }))
}

/// The new cycle of the enclave with this SECS, whose tracking facility the caller holds. All
/// processors must have completed the previous one.
pub(super) fn begin_cycle(
    platform: &Platform,
    port: &impl LeafPort,
    secs: EpcIndex,
) -> Result<LeafOutcome, Stop> {
    if platform.entry(secs).update_tracking(|tracking| tracking.next_epoch()).is_some() {
        return Ok(LeafOutcome::status(SgxStatus::Success));
    }
    if port.epc_virtualization() {
        let context = platform.page(secs).load(Secs::ENCLAVECONTEXT);
        return Err(Stop::Conflict(Conflict::TrackingReference { context }));
    }
    Ok(LeafOutcome::status(SgxStatus::PrevTrkIncmpl))
}
