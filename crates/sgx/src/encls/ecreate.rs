//! ENCLS\[ECREATE\] (SDM Vol. 3D, 38.3, ECREATE): an SECS from a source page.

use cloister_x86::Exception;
use cloister_x86::addr::is_canonical;
use zerocopy::IntoBytes as _;

use crate::attributes::{AttributeFlags, MISCSELECT_EXINFO};
use crate::capabilities::Capabilities;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epc::EpcIndex;
use crate::epcm::{EpcmFlags, EpcmView, Lock, PageType};
use crate::layout::{PageInfo, SecInfo, SecInfoFlags, Secs, gprsgx};
use crate::measurement::{Measurement, ecreate_block};
use crate::operand::{EpcOperand, Privilege, conflict, linear_aligned, read_struct};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::xsave::{area_size, legal_xcr0};

/// RBX: PAGEINFO; RCX: the EPC page that becomes the SECS.
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
    let secinfo_la = linear_aligned(port, pageinfo.secinfo.get(), 64, 64)?;
    check_pageinfo(&pageinfo)?;
    check_secinfo(&read_struct(port, secinfo_la)?)?;
    let lock = claim(platform, port, &target)?;
    let mut secs: Secs = read_struct(port, source_la)?;
    check_secs(&port.capabilities(), &secs)?;
    commit(platform, target.index, &mut secs, lock);
    Ok(LeafOutcome::default())
}

/// PAGEINFO.LINADDR and PAGEINFO.SECS must be zero.
fn check_pageinfo(pageinfo: &PageInfo) -> Result<(), Exception> {
    if pageinfo.linaddr.get() != 0 || pageinfo.secs.get() != 0 {
        return Err(Exception::gp(0));
    }
    Ok(())
}

/// Misconfigured SECINFO flags. The state bits (PENDING, MODIFIED, PR) have no meaning for a page
/// that is being added and count as reserved, as they were before SGX2.
fn check_secinfo(secinfo: &SecInfo) -> Result<(), Exception> {
    let state = SecInfoFlags::PENDING | SecInfoFlags::MODIFIED | SecInfoFlags::PR;
    if !secinfo.reserved_is_zero()
        || secinfo.flags.get() & state.bits() != 0
        || secinfo.page_type() != Some(PageType::Secs)
    {
        return Err(Exception::gp(0));
    }
    Ok(())
}

/// "EPC entry in use" is #GP(0), or an exit; VALID is #PF.
fn claim<'a>(
    platform: &'a Platform,
    port: &impl LeafPort,
    target: &EpcOperand,
) -> Result<Lock<'a>, Stop> {
    let entry = platform.entry(target.index);
    let lock = entry.try_exclusive().ok_or_else(|| conflict(port, target.la))?;
    if entry.view().valid() {
        return Err(target.page_fault().into());
    }
    Ok(lock)
}

/// The checks on the contents of the SECS, in the order of the pseudo-code.
fn check_secs(capabilities: &Capabilities, secs: &Secs) -> Result<(), Exception> {
    let attributes = secs.attributes;
    let xfrm = attributes.xfrm.get();
    let base = secs.baseaddr.get();
    let size = secs.size.get();
    let mode64 = attributes.has(AttributeFlags::MODE64BIT);

    // SDM Vol. 3D, 39.7.3: XFRM.
    let xfrm_legal = xfrm & 3 == 3 && xfrm & !capabilities.xfrm == 0 && legal_xcr0(xfrm);
    // No processor of the model supports CET, so every CET field must be clear.
    let cet_legal = secs.cet_leg_bitmap_offset.get() == 0 && secs.cet_attributes == 0;
    // SDM Vol. 3D, 35.7.2: MISCSELECT.
    let misc_legal = secs.miscselect.get() & !capabilities.miscselect == 0;
    // SDM Vol. 3D, 39.7.2.2: the frame holds XSAVE, MISC and GPRSGX.
    let misc_size =
        if secs.miscselect.get() & MISCSELECT_EXINFO != 0 { gprsgx::EXINFO_SIZE } else { 0 };
    let frame = (area_size(xfrm) + gprsgx::SIZE + misc_size) as u64;
    let frame_fits = u64::from(secs.ssaframesize.get()) * 4096 >= frame;
    let base_legal = if mode64 { is_canonical(base) } else { base >> 32 == 0 };
    let largest = if mode64 {
        1u64 << capabilities.max_enclave_size_64
    } else {
        1u64 << capabilities.max_enclave_size_not64
    };
    let size_legal = size < largest && size >= 8192 && size.is_power_of_two();
    let aligned = base & size.wrapping_sub(1) == 0;
    // CR_SGX_ATTRIBUTES_MASK; INIT never is in it.
    let attributes_legal = attributes.flags.get() & !capabilities.attributes.bits() == 0;
    let config_used = secs.configid != [0; 64] || secs.configsvn.get() != 0;
    let config_legal = !config_used || attributes.has(AttributeFlags::KSS);

    if xfrm_legal
        && cet_legal
        && misc_legal
        && frame_fits
        && base_legal
        && size_legal
        && aligned
        && attributes_legal
        && secs.reserved_is_zero()
        && config_legal
    {
        Ok(())
    } else {
        Err(Exception::gp(0))
    }
}

fn commit(platform: &Platform, target: EpcIndex, secs: &mut Secs, lock: Lock<'_>) {
    secs.mrenclave = [0; 32];
    secs.mrsigner = [0; 32];
    secs.isvsvn = 0.into();
    secs.isvprodid = 0.into();
    secs.eid = platform.next_eid().into();
    secs.virtchildcnt = 0.into();
    // The translation of DS:RCX, which is the EPC index in this model.
    secs.enclavecontext = u64::from(target.0).into();
    let mut measurement = Measurement::new();
    measurement.update(&[ecreate_block(secs)]);
    let page = platform.page(target);
    page.write(0, secs.as_bytes());
    measurement.store(page);
    platform.entry(target).install(EpcmView {
        flags: EpcmFlags::empty(),
        page_type: PageType::Secs,
        secs: target,
        address: 0,
    });
    drop(lock);
}
