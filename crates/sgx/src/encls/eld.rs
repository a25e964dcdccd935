//! ENCLS\[ELDB\], \[ELDU\], \[ELDBC\] and \[ELDUC\] (SDM Vol. 3D, 38.3, ELDB/ELDU/ELDBC/ELDUC):
//! load an evicted page, blocked or unblocked.

use core::sync::atomic::Ordering;

use cloister_x86::La;

use crate::encls::{EnclsRegs, LeafOutcome, leaf};
use crate::epc::EPC_PAGE_SIZE;
use crate::epcm::{EpcmFlags, EpcmView, PageType};
use crate::layout::{PageInfo, Pcmd, SecInfoFlags, Secs};
use crate::operand::{
    EpcOperand, GP, Privilege, conflict, linear_aligned, read_struct, reported_conflict,
};
use crate::paging::{MacHeader, open};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// Why a load did not complete.
enum Refusal {
    /// It stopped.
    Stop(Stop),
    /// Another leaf is at work on the VA page or slot or on the SECS.
    Conflict,
    /// The same of the target page, at this address, for which there is also SGX_CONFLICT.
    TargetConflict(La),
}

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// RBX: PAGEINFO with page, PCMD and SECS; RCX: the EPC page; RDX: the version slot.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let blocked = matches!(regs.eax, leaf::ELDB | leaf::ELDBC);
    let reports_conflicts = matches!(regs.eax, leaf::ELDBC | leaf::ELDUC);
    match load(platform, port, regs, blocked) {
        Ok(status) => Ok(LeafOutcome::status(status)),
        Err(Refusal::Stop(stop)) => Err(stop),
        Err(Refusal::TargetConflict(la)) if reports_conflicts => reported_conflict(port, la),
        Err(Refusal::TargetConflict(la)) => Err(conflict(port, la)),
        Err(Refusal::Conflict) if reports_conflicts => {
            Ok(LeafOutcome::status(SgxStatus::EpcPageConflict))
        }
        Err(Refusal::Conflict) => Err(GP),
    }
}

fn load(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
    blocked: bool,
) -> Result<SgxStatus, Refusal> {
    let pageinfo_la = linear_aligned(port, regs.rbx, 32, 32)?;
    let target_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = EpcOperand::resolve(port, target_la, EpcAccess::Write, Privilege::Supervisor)?;
    let slot_la = linear_aligned(port, regs.rdx, 8, 8)?;
    let slot = EpcOperand::resolve(port, slot_la, EpcAccess::Write, Privilege::Supervisor)?;
    let pageinfo: PageInfo = read_struct(port, pageinfo_la)?;
    let pcmd_la = linear_aligned(port, pageinfo.secinfo.get(), size_of::<Pcmd>() as u64, 128)?;
    let source_la = linear_aligned(port, pageinfo.srcpge.get(), 4096, 4096)?;

    // Table 38-29. A page that is named twice is not in use by another leaf: the checks below
    // find that it is not both an unused page and a version array or SECS.
    let entry = platform.entry(target.index);
    let _lock = entry.try_exclusive().ok_or(Refusal::TargetConflict(target_la))?;
    let va_entry = platform.entry(slot.index);
    let _va_lock = if slot.index == target.index {
        None
    } else {
        Some(va_entry.try_shared().ok_or(Refusal::Conflict)?)
    };
    if entry.view().valid() {
        return Err(Stop::from(target.page_fault()).into());
    }
    if !va_entry.view().is(PageType::Va) {
        return Err(Stop::from(slot.page_fault()).into());
    }

    let pcmd: Pcmd = read_struct(port, pcmd_la)?;
    let page_type = pcmd.secinfo.page_type();
    // Pages of shadow stacks belong to processors with CET. Here they are as types that do not
    // exist.
    let has_parent = matches!(page_type, Some(PageType::Reg | PageType::Tcs | PageType::Trim));
    let secs_ea = pageinfo.secs.get();
    let parent = if has_parent {
        let la = linear_aligned(port, secs_ea, 4096, 4096)?;
        Some(EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::Supervisor)?)
    } else if secs_ea != 0 {
        return Err(Refusal::Stop(GP));
    } else {
        None
    };
    let _parent_lock = match &parent {
        Some(parent) if parent.index != target.index => {
            Some(platform.entry(parent.index).try_shared().ok_or(Refusal::Conflict)?)
        }
        _ => None,
    };
    // The pseudo-code leaves it to the exceptions' descriptions that the SECS must be one.
    let eid = match &parent {
        Some(parent) if !platform.entry(parent.index).view().is(PageType::Secs) => {
            return Err(Stop::from(parent.page_fault()).into());
        }
        Some(parent) => platform.page(parent.index).load(Secs::EID),
        None => 0,
    };

    let header = MacHeader {
        secinfo: pcmd.secinfo,
        eid: eid.into(),
        linaddr: pageinfo.linaddr,
        rsvd: pcmd.reserved,
        zero: [0; 8],
    };
    let mut contents = [0; EPC_PAGE_SIZE];
    port.read(source_la, &mut contents)?;
    let cell = &platform.page(slot.index).words[slot_la.page_offset() as usize / 8];
    let version = cell.load(Ordering::Acquire);
    if !open(platform, u64::from_le(version), &header, &mut contents, &pcmd.mac) {
        return Ok(SgxStatus::MacCompareFail);
    }
    // EWB authenticated the type, so it is a known one.
    let Some(page_type) = page_type else {
        return Ok(SgxStatus::MacCompareFail);
    };
    // "Other instructions modifying VA slot": another load used up the version meanwhile.
    if cell.compare_exchange(version, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return Err(Refusal::Conflict);
    }

    let page = platform.page(target.index);
    page.write(0, &contents);
    if page_type == PageType::Secs {
        // The translation of DS:RCX, which is the EPC index in this model.
        page.store(Secs::ENCLAVECONTEXT, u64::from(target.index.0));
    }
    let mut flags = pcmd.secinfo.permissions();
    for (secinfo, epcm) in [
        (SecInfoFlags::PENDING, EpcmFlags::PENDING),
        (SecInfoFlags::MODIFIED, EpcmFlags::MODIFIED),
        (SecInfoFlags::PR, EpcmFlags::PR),
    ] {
        flags.set(epcm, pcmd.secinfo.has(secinfo));
    }
    flags.set(EpcmFlags::BLOCKED, blocked && parent.is_some());
    let secs = parent.map_or(target.index, |parent| parent.index);
    if parent.is_some() {
        platform.entry(secs).add_child();
    }
    entry.install(EpcmView { flags, page_type, secs, address: pageinfo.linaddr.get() });
    if parent.is_some() {
        // Nobody can have a translation to a page that was not there: it counts as tracked.
        let epoch = platform.entry(secs).tracking().epoch();
        entry.set_tracked_epoch(epoch.wrapping_sub(2));
    }
    Ok(SgxStatus::Success)
}
