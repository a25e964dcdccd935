//! ENCLS\[EEXTEND\] (SDM Vol. 3D, 38.3, EEXTEND): measures 256 bytes of an enclave's page.

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epcm::{Family, PageType};
use crate::layout::Secs;
use crate::measurement::{Measurement, eextend_block};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};

/// RBX: the SECS; RCX: 256 bytes of a page of its enclave.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let secs_la = linear_aligned(port, regs.rbx, 4096, 4096)?;
    let secs = EpcOperand::resolve(port, secs_la, EpcAccess::Write, Privilege::Supervisor)?;
    let chunk_la = linear_aligned(port, regs.rcx, 256, 256)?;
    let chunk = EpcOperand::resolve(port, chunk_la, EpcAccess::Read, Privilege::Supervisor)?;

    let entry = platform.entry(chunk.index);
    let _lock = entry.try_shared().ok_or(GP)?;
    let view = entry.view();
    if !view.valid() {
        return Err(chunk.page_fault().into());
    }
    if !matches!(
        view.page_type,
        PageType::Reg | PageType::Tcs | PageType::SsFirst | PageType::SsRest
    ) {
        return Err(chunk.page_fault().into());
    }
    if view.secs != secs.index {
        return Err(GP);
    }
    let secs_entry = platform.entry(secs.index);
    let secs_page = platform.page(secs.index);
    // What is measured, before the lock rather than after it: it waits for stores anyway, and
    // SHA-256 would wait for these.
    let in_page = chunk_la.page_offset();
    let offset = view.address.wrapping_sub(secs_page.load(Secs::BASEADDR)).wrapping_add(in_page);
    let mut blocks = [[0; 64]; 5];
    blocks[0] = eextend_block(offset);
    platform.page(chunk.index).read(in_page as usize, blocks[1..].as_flattened_mut());

    let _measure = secs_entry.try_family(Family::Measure).ok_or(GP)?;
    if secs_page.load(Secs::ATTRIBUTES) & AttributeFlags::INIT.bits() != 0 {
        return Err(GP);
    }

    Measurement::extend(secs_page, &blocks);
    Ok(LeafOutcome::default())
}
