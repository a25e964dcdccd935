//! ENCLS\[ERDINFO\] (SDM Vol. 3D, 38.3, ERDINFO): type and state of an EPC page.

use zerocopy::IntoBytes as _;

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{EpcmEntry, EpcmFlags, EpcmView, PageType};
use crate::layout::{RdInfo, RdInfoStatus, Secs};
use crate::operand::linear_aligned;
use crate::paging::secinfo_of;
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RBX: RDINFO; RCX: the EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let rdinfo_la = linear_aligned(port, regs.rbx, size_of::<RdInfo>() as u64, 32)?;
    let target_la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let Some(target) = port.resolve_epc(target_la, EpcAccess::Read)? else {
        return Ok(LeafOutcome::information(SgxStatus::PgNonEpc));
    };
    let entry = platform.entry(target);
    // Table 38-40.
    let Some(_lock) = entry.try_shared() else {
        return Ok(LeafOutcome::status(SgxStatus::EpcPageConflict));
    };
    let view = entry.view();
    if !view.valid() {
        return Ok(LeafOutcome::information(SgxStatus::PgInvld));
    }
    let rdinfo = describe(platform, entry, &view, port.epc_virtualization());
    port.write(rdinfo_la, rdinfo.as_bytes())?;
    Ok(LeafOutcome::status(SgxStatus::Success))
}

/// What RDINFO says of a page, `virtualized` as [`LeafPort::epc_virtualization`] has it.
fn describe(platform: &Platform, entry: &EpcmEntry, view: &EpcmView, virtualized: bool) -> RdInfo {
    let secs = platform.page(view.secs);
    let (status, enclavecontext) = match view.page_type {
        PageType::Va => (RdInfoStatus::empty(), 0),
        PageType::Secs => {
            let children = entry.children() != 0;
            let virtual_children = secs.load(Secs::VIRTCHILDCNT) != 0;
            let mut status = RdInfoStatus::empty();
            if virtualized {
                // The guest sees no difference between the two kinds of children, and no context,
                // which is its VMM's.
                status.set(RdInfoStatus::CHILDPRESENT, children || virtual_children);
                (status, 0)
            } else {
                status.set(RdInfoStatus::CHILDPRESENT, children);
                status.set(RdInfoStatus::VIRTCHLDPRESENT, virtual_children);
                (status, secs.load(Secs::ENCLAVECONTEXT))
            }
        }
        PageType::Reg | PageType::Tcs | PageType::Trim | PageType::SsFirst | PageType::SsRest => {
            (RdInfoStatus::empty(), secs.load(Secs::ENCLAVECONTEXT))
        }
    };
    let blocked = if view.flags.contains(EpcmFlags::BLOCKED) { RdInfo::BLOCKED } else { 0 };
    RdInfo {
        status: status.bits().into(),
        flags: (secinfo_of(view).flags.get() | blocked).into(),
        enclavecontext: enclavecontext.into(),
    }
}
