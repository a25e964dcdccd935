//! ENCLS\[EADD\] (SDM Vol. 3D, 38.3, EADD): a page for an enclave that is being built.

use zerocopy::IntoBytes as _;

use crate::attributes::AttributeFlags;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epc::EPC_PAGE_SIZE;
use crate::epcm::{EpcmFlags, EpcmView, Family, PageType};
use crate::layout::{PageInfo, SecInfo, SecInfoFlags, Secs, tcs};
use crate::measurement::{Measurement, eadd_block};
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
    let source_la = linear_aligned(port, pageinfo.srcpge.get(), 4096, 4096)?;
    let secs_la = linear_aligned(port, pageinfo.secs.get(), 4096, 4096)?;
    let secinfo_la = linear_aligned(port, pageinfo.secinfo.get(), 64, 64)?;
    let linaddr = pageinfo.linaddr.get();
    if !linaddr.is_multiple_of(EPC_PAGE_SIZE as u64) {
        return Err(GP);
    }
    let secs = EpcOperand::resolve(port, secs_la, EpcAccess::Write, Privilege::Supervisor)?;
    let mut secinfo: SecInfo = read_struct(port, secinfo_la)?;

    // Misconfigured SECINFO flags. The state bits have no meaning for a page that is being added
    // and count as reserved. CET is not modelled, so there are no shadow-stack pages.
    let state = SecInfoFlags::PENDING | SecInfoFlags::MODIFIED | SecInfoFlags::PR;
    if !secinfo.reserved_is_zero() || secinfo.flags.get() & state.bits() != 0 {
        return Err(GP);
    }
    let page_type = match secinfo.page_type() {
        Some(page_type @ (PageType::Reg | PageType::Tcs)) => page_type,
        _ => return Err(GP),
    };

    // Concurrency and state of the EPC page, then of the SECS (tables 38-8 and 38-9).
    let entry = platform.entry(target.index);
    let _target_lock = entry.try_exclusive().ok_or_else(|| conflict(port, target_la))?;
    if entry.view().valid() {
        return Err(target.page_fault().into());
    }
    let secs_entry = platform.entry(secs.index);
    let _secs_lock = secs_entry.try_shared().ok_or(GP)?;
    if !secs_entry.view().is(PageType::Secs) {
        return Err(secs.page_fault().into());
    }
    let secs_page = platform.page(secs.index);
    let base = secs_page.load(Secs::BASEADDR);
    let size = secs_page.load(Secs::SIZE);

    let mut contents = [0; EPC_PAGE_SIZE];
    port.read(source_la, &mut contents)?;
    match page_type {
        PageType::Tcs => {
            if contents[tcs::LIMIT..].iter().any(|&byte| byte != 0) {
                return Err(GP);
            }
            let flags = AttributeFlags::from_bits_truncate(secs_page.load(Secs::ATTRIBUTES));
            if !flags.contains(AttributeFlags::MODE64BIT) {
                let limit = |at: usize| u16::from_le_bytes([contents[at], contents[at + 1]]);
                if limit(tcs::FSLIMIT) & 0xfff != 0xfff || limit(tcs::GSLIMIT) & 0xfff != 0xfff {
                    return Err(GP);
                }
            }
            // Software writes these fields only through EENTER and a debugger.
            contents[tcs::STATE..tcs::STATE + 8].fill(0);
            contents[tcs::FLAGS] &= !1;
            contents[tcs::CSSA..tcs::CSSA + 4].fill(0);
            contents[tcs::AEP..tcs::AEP + 8].fill(0);
            secinfo.flags = (secinfo.flags.get() & !7).into();
        }
        _ => {
            if secinfo.has(SecInfoFlags::W) && !secinfo.has(SecInfoFlags::R) {
                return Err(GP);
            }
        }
    }
    // The page lies in the enclave's linear address space.
    let offset = linaddr.wrapping_sub(base);
    if offset >= size {
        return Err(GP);
    }
    let _measure = secs_entry.try_family(Family::Measure).ok_or(GP)?;
    if secs_page.load(Secs::ATTRIBUTES) & AttributeFlags::INIT.bits() != 0 {
        return Err(GP);
    }

    let mut measured = [0; 48];
    measured.copy_from_slice(&secinfo.as_bytes()[..48]);
    platform.page(target.index).write(0, &contents);
    Measurement::extend(secs_page, &[eadd_block(offset, &measured)]);
    secs_entry.add_child();
    entry.install(EpcmView {
        flags: match page_type {
            PageType::Tcs => EpcmFlags::empty(),
            _ => secinfo.permissions(),
        },
        page_type,
        secs: secs.index,
        address: linaddr,
    });
    Ok(LeafOutcome::default())
}
