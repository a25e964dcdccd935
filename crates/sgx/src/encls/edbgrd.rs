//! ENCLS\[EDBGRD\] (SDM Vol. 3D, 38.3, EDBGRD): reads from a debug enclave.

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmFlags, PageType};
use crate::layout::{Secs, tcs};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RCX: address in an EPC page. RBX receives 8 bytes in 64-bit mode, 4 otherwise.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let width = if regs.mode64 { 8 } else { 4 };
    let la = linear_aligned(port, regs.rcx, width, width)?;
    let source = EpcOperand::resolve(port, la, EpcAccess::Read, Privilege::Supervisor)?;
    let entry = platform.entry(source.index);
    let _lock = entry.try_shared().ok_or(GP)?;
    let view = entry.view();
    if !view.valid() {
        return Err(source.page_fault().into());
    }
    if !matches!(
        view.page_type,
        PageType::Reg | PageType::Tcs | PageType::Va | PageType::SsFirst | PageType::SsRest
    ) {
        return Err(source.page_fault().into());
    }
    if view.flags.intersects(EpcmFlags::PENDING | EpcmFlags::MODIFIED) {
        return Ok(LeafOutcome::status(SgxStatus::PageNotDebuggable));
    }
    let offset = la.page_offset() as usize;
    if view.page_type == PageType::Tcs && offset >= tcs::LIMIT {
        return Err(GP);
    }
    let page = platform.page(source.index);
    let quad = page.load(offset);
    let value = if view.page_type == PageType::Va {
        // A version slot tells only whether it is occupied.
        if quad & !7 != 0 { u64::MAX } else { 0 }
    } else {
        let flags = platform.page(view.secs).load(Secs::ATTRIBUTES);
        if flags & AttributeFlags::DEBUG.bits() == 0 {
            return Err(GP);
        }
        quad >> (offset % 8 * 8)
    };
    let value = if regs.mode64 { value } else { value & 0xffff_ffff };
    Ok(LeafOutcome { rbx: Some(value), ..LeafOutcome::status(SgxStatus::Success) })
}
