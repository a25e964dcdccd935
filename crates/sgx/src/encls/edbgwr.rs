//! ENCLS\[EDBGWR\] (SDM Vol. 3D, 38.3, EDBGWR): writes to a debug enclave.

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmFlags, PageType};
use crate::layout::{Secs, tcs};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RBX: the value, 8 bytes in 64-bit mode, 4 otherwise; RCX: address in an EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let width = if regs.mode64 { 8 } else { 4 };
    let la = linear_aligned(port, regs.rcx, width, width)?;
    let target = EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::Supervisor)?;
    let entry = platform.entry(target.index);
    let _lock = entry.try_shared().ok_or(GP)?;
    let view = entry.view();
    if !view.valid() {
        return Err(target.page_fault().into());
    }
    if !matches!(
        view.page_type,
        PageType::Reg | PageType::Tcs | PageType::SsFirst | PageType::SsRest
    ) {
        return Err(target.page_fault().into());
    }
    if view.flags.intersects(EpcmFlags::PENDING | EpcmFlags::MODIFIED) {
        return Ok(LeafOutcome::status(SgxStatus::PageNotDebuggable));
    }
    let offset = la.page_offset() as usize;
    if view.page_type == PageType::Tcs && offset & 0xff8 != tcs::FLAGS {
        return Err(GP);
    }
    let flags = platform.page(view.secs).load(Secs::ATTRIBUTES);
    if flags & AttributeFlags::DEBUG.bits() == 0 {
        return Err(GP);
    }
    let page = platform.page(target.index);
    page.write(offset, &regs.rbx.to_le_bytes()[..width as usize]);
    Ok(LeafOutcome::status(SgxStatus::Success))
}
