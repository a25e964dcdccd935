//! What EDECVIRTCHILD and EINCVIRTCHILD have in common: the checks on the page and its SECS.

use core::sync::atomic::Ordering;

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::PageType;
use crate::layout::Secs;
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RBX: a page of the enclave, or its SECS; RCX: the SECS. Replaces VIRTCHILDCNT by what `change`
/// makes of it; the leaf reports SGX_INVALID_COUNTER if that is `None`.
pub(super) fn count(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
    change: impl Fn(u64) -> Option<u64>,
) -> Result<LeafOutcome, Stop> {
    let page_la = linear_aligned(port, regs.rbx, 4096, 4096)?;
    let page = EpcOperand::resolve(port, page_la, EpcAccess::Write, Privilege::Supervisor)?;
    let secs_la = port.linear(regs.rcx, 4096)?;
    let secs = EpcOperand::resolve(port, secs_la, EpcAccess::Read, Privilege::Supervisor)?;

    // As long as the page is held, its SECS stays.
    let entry = platform.entry(page.index);
    let Some(_lock) = entry.try_shared() else {
        return Ok(LeafOutcome::status(SgxStatus::EpcPageConflict));
    };
    let view = entry.view();
    // The EPCM entry of an SECS names the page itself.
    if !view.valid() || view.page_type == PageType::Va {
        return Err(page.page_fault().into());
    }
    // Physical addresses are compared, so an address that is not a page's is another one.
    if view.secs != secs.index || secs_la.page_offset() != 0 {
        return Err(GP);
    }
    let counter = &platform.page(secs.index).words[Secs::VIRTCHILDCNT / 8];
    let changed = counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
        change(u64::from_le(count)).map(u64::to_le)
    });
    Ok(LeafOutcome::status(match changed {
        Ok(_) => SgxStatus::Success,
        Err(_) => SgxStatus::InvalidCounter,
    }))
}
