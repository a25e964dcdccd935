//! ENCLS\[EPA\] (SDM Vol. 3D, 38.3, EPA): an empty version array.

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmFlags, EpcmView, PageType};
use crate::operand::{EpcOperand, GP, Privilege, conflict, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};

/// RBX: PT_VA; RCX: the EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let page_type = if regs.mode64 { regs.rbx } else { regs.rbx & 0xffff_ffff };
    if page_type != PageType::Va as u64 {
        return Err(GP);
    }
    let la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::Supervisor)?;
    let entry = platform.entry(target.index);
    let _lock = entry.try_exclusive().ok_or_else(|| conflict(port, la))?;
    if entry.view().valid() {
        return Err(target.page_fault().into());
    }
    platform.page(target.index).clear();
    entry.install(EpcmView {
        flags: EpcmFlags::empty(),
        page_type: PageType::Va,
        secs: target.index,
        address: 0,
    });
    Ok(LeafOutcome::default())
}
