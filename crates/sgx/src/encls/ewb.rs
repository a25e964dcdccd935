//! ENCLS\[EWB\] (SDM Vol. 3D, 38.3, EWB): evicts a page from the EPC.

use zerocopy::IntoBytes as _;

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epc::EPC_PAGE_SIZE;
use crate::epcm::{EpcmFlags, EpcmView, PageType};
use crate::layout::{PageInfo, Pcmd, Secs};
use crate::operand::{EpcOperand, GP, Privilege, conflict, linear_aligned, read_struct};
use crate::paging::{MacHeader, seal, secinfo_of};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RBX: PAGEINFO with the places for page and PCMD; RCX: the EPC page; RDX: the version slot.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let pageinfo_la = linear_aligned(port, regs.rbx, 32, 32)?;
    let source_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let source = EpcOperand::resolve(port, source_la, EpcAccess::Write, Privilege::Supervisor)?;
    let slot_la = linear_aligned(port, regs.rdx, 8, 8)?;
    let slot = EpcOperand::resolve(port, slot_la, EpcAccess::Write, Privilege::Supervisor)?;
    if source.index == slot.index {
        return Err(GP);
    }
    let pageinfo: PageInfo = read_struct(port, pageinfo_la)?;
    if pageinfo.linaddr.get() != 0 || pageinfo.secs.get() != 0 {
        return Err(GP);
    }
    // PCMD takes the place of SECINFO.
    let pcmd_la = linear_aligned(port, pageinfo.secinfo.get(), size_of::<Pcmd>() as u64, 128)?;
    let output_la = linear_aligned(port, pageinfo.srcpge.get(), 4096, 4096)?;

    // Table 38-52.
    let entry = platform.entry(source.index);
    let _lock = entry.try_exclusive().ok_or_else(|| conflict(port, source_la))?;
    let va_entry = platform.entry(slot.index);
    let _va_lock = va_entry.try_shared().ok_or(GP)?;
    let view = entry.view();
    if !view.valid() {
        return Err(source.page_fault().into());
    }
    if !va_entry.view().is(PageType::Va) {
        return Err(slot.page_fault().into());
    }

    let page = platform.page(source.index);
    // "Check that EBLOCK has occurred correctly": no tracking cycle begins while the page is
    // evicted by the one that is under way. Table 38-53 has this among the VA page's restrictions.
    let has_parent = !matches!(view.page_type, PageType::Secs | PageType::Va);
    let _tracked =
        if has_parent { Some(platform.entry(view.secs).try_tracked().ok_or(GP)?) } else { None };
    let (eid, enclaveid) = match view.page_type {
        PageType::Reg | PageType::Tcs | PageType::Trim | PageType::SsFirst | PageType::SsRest => {
            if !view.flags.contains(EpcmFlags::BLOCKED) {
                return Ok(LeafOutcome::status(SgxStatus::PageNotBlocked));
            }
            if !platform.entry(view.secs).tracking().tracked(entry.tracked_epoch()) {
                return Ok(LeafOutcome::status(SgxStatus::NotTracked));
            }
            let eid = platform.page(view.secs).load(Secs::EID);
            (eid, eid)
        }
        PageType::Secs => {
            if entry.children() != 0 {
                return Ok(LeafOutcome::status(SgxStatus::ChildPresent));
            }
            if port.epc_virtualization() && page.load(Secs::VIRTCHILDCNT) != 0 {
                return Ok(LeafOutcome::status(SgxStatus::ChildPresent));
            }
            (0, page.load(Secs::EID))
        }
        PageType::Va => (0, 0),
    };

    let header = MacHeader {
        secinfo: secinfo_of(&view),
        eid: eid.into(),
        linaddr: view.address.into(),
        rsvd: [0; 40],
        zero: [0; 8],
    };
    let version = platform.next_paging_version();
    let mut contents: [u8; EPC_PAGE_SIZE] = page.to_bytes();
    let mac = seal(platform, version, &header, &mut contents);
    let pcmd =
        Pcmd { secinfo: header.secinfo, enclaveid: enclaveid.into(), reserved: [0; 40], mac };
    // These writes may fault; the page leaves the EPC only after the last of them.
    port.write(output_la, &contents)?;
    port.write(pcmd_la, pcmd.as_bytes())?;
    port.write(pageinfo_la, header.linaddr.as_bytes())?;

    let va_page = platform.page(slot.index);
    let occupied = swap_slot(va_page, slot_la.page_offset() as usize, version) != 0;
    release(platform, &view, entry);
    Ok(LeafOutcome::status(if occupied { SgxStatus::VaSlotOccupied } else { SgxStatus::Success }))
}

/// Frees the EPCM entry and the place in the enclave.
fn release(platform: &Platform, view: &EpcmView, entry: &crate::epcm::EpcmEntry) {
    entry.invalidate();
    if !matches!(view.page_type, PageType::Secs | PageType::Va) {
        platform.entry(view.secs).remove_child();
    }
}

/// Puts `version` into the slot at `offset` and returns what it held.
fn swap_slot(page: crate::epc::EpcPage<'_>, offset: usize, version: u64) -> u64 {
    let cell = &page.words[offset / 8];
    u64::from_le(cell.swap(version.to_le(), core::sync::atomic::Ordering::AcqRel))
}
