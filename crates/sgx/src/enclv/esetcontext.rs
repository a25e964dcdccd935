//! ENCLV\[ESETCONTEXT\] (SDM Vol. 3D, 38.5, ESETCONTEXT): sets ENCLAVECONTEXT of an SECS.

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::PageType;
use crate::layout::Secs;
use crate::operand::{EpcOperand, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RCX: the SECS; RDX: the context value.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let secs_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let secs = EpcOperand::resolve(port, secs_la, EpcAccess::Read, Privilege::Supervisor)?;
    let context_la = linear_aligned(port, regs.rdx, 8, 8)?;
    let mut context = [0; 8];
    port.read(context_la, &mut context)?;

    // Table 38-80.
    let entry = platform.entry(secs.index);
    let Some(_lock) = entry.try_shared() else {
        return Ok(LeafOutcome::status(SgxStatus::EpcPageConflict));
    };
    if !entry.view().is(PageType::Secs) {
        return Err(secs.page_fault().into());
    }
    platform.page(secs.index).store(Secs::ENCLAVECONTEXT, u64::from_le_bytes(context));
    Ok(LeafOutcome::status(SgxStatus::Success))
}
