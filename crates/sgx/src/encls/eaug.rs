//! ENCLS\[EAUG\] (SDM Vol. 3D, 38.3, EAUG): a pending page for an initialized enclave.

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmFlags, EpcmView, PageType};
use crate::layout::{PageInfo, SecInfo, Secs};
use crate::operand::{EpcOperand, GP, Privilege, conflict, linear_aligned, read_struct};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};

/// RBX: PAGEINFO; RCX: the EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let pageinfo_la = linear_aligned(port, regs.rbx, 32, 32)?;
    let target_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, target_la, EpcAccess::Write, Privilege::Supervisor)?;
    let pageinfo: PageInfo = read_struct(port, pageinfo_la)?;
    let secinfo_la = match pageinfo.secinfo.get() {
        0 => None,
        ea => Some(linear_aligned(port, ea, 64, 64)?),
    };
    let secs_la = linear_aligned(port, pageinfo.secs.get(), 4096, 4096)?;
    let linaddr = pageinfo.linaddr.get();
    if !linaddr.is_multiple_of(4096) {
        return Err(GP);
    }
    if pageinfo.srcpge.get() != 0 {
        return Err(GP);
    }
    let secs = EpcOperand::resolve(port, secs_la, EpcAccess::Write, Privilege::Supervisor)?;

    // Table 38-6.
    let entry = platform.entry(target.index);
    let _lock = entry.try_exclusive().ok_or_else(|| conflict(port, target_la))?;
    if entry.view().valid() {
        return Err(target.page_fault().into());
    }
    if let Some(la) = secinfo_la {
        // A SECINFO can only ask for a shadow-stack page, and CET is not modelled.
        let _: SecInfo = read_struct(port, la)?;
        return Err(GP);
    }
    let secs_entry = platform.entry(secs.index);
    let _secs_lock = secs_entry.try_shared().ok_or(GP)?;
    if !secs_entry.view().is(PageType::Secs) {
        return Err(secs.page_fault().into());
    }
    let secs_page = platform.page(secs.index);
    if secs_page.load(Secs::ATTRIBUTES) & AttributeFlags::INIT.bits() == 0 {
        return Err(GP);
    }
    if linaddr.wrapping_sub(secs_page.load(Secs::BASEADDR)) >= secs_page.load(Secs::SIZE) {
        return Err(GP);
    }

    platform.page(target.index).clear();
    secs_entry.add_child();
    entry.install(EpcmView {
        flags: EpcmFlags::R | EpcmFlags::W | EpcmFlags::PENDING,
        page_type: PageType::Reg,
        secs: secs.index,
        address: linaddr,
    });
    Ok(LeafOutcome::default())
}
