//! ENCLS\[ETRACKC\] (SDM Vol. 3D, 38.3, ETRACKC): begins a tracking cycle of the enclave that a
//! page belongs to.

use crate::encls::etrack::{begin_cycle, tracking_conflict};
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{Family, PageType};
use crate::operand::{EpcOperand, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RCX: the EPC page, an enclave's or an SECS.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::Supervisor)?;
    let entry = platform.entry(target.index);
    // Tables 38-49 and 38-50. As long as the page is held, its SECS stays.
    let Some(_lock) = entry.try_shared() else {
        return Ok(LeafOutcome::status(SgxStatus::EpcPageConflict));
    };
    let view = entry.view();
    if !view.valid() {
        return Ok(LeafOutcome::status(SgxStatus::PgInvld));
    }
    let secs = match view.page_type {
        // The EPCM entry of an SECS names the page itself.
        PageType::Secs
        | PageType::Reg
        | PageType::Tcs
        | PageType::Trim
        | PageType::SsFirst
        | PageType::SsRest => view.secs,
        PageType::Va => return Ok(LeafOutcome::status(SgxStatus::TrackNotRequired)),
    };
    let Some(_tracking) = platform.entry(secs).try_family(Family::Track) else {
        return match tracking_conflict(platform, port, secs) {
            Some(exit) => Err(exit),
            None => Ok(LeafOutcome::status(SgxStatus::EpcPageConflict)),
        };
    };
    begin_cycle(platform, port, secs)
}
