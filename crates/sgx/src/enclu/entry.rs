//! What EENTER and ERESUME have in common (SDM Vol. 3D, 38.4): the checks on segments, TCS and
//! enclave, the latching of an SSA frame, and the switch into enclave mode.

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::Rflags;
use cloister_x86::{Gpr, La, Rights, Segment};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::attributes::{AttributeFlags, Attributes};
use crate::enclu::claim::{CountedIn, TcsClaim};
use crate::epc::{EpcIndex, EpcPage};
use crate::epcm::{EpcmFlags, Lock, PageType};
use crate::layout::{Secs, Tcs, TcsFlags, gprsgx, tcs};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::{ActiveEnclave, EnclaveState, XSAVE_PAGES};
use crate::xsave::area_size;

const NOT_ACCESSIBLE: EpcmFlags = EpcmFlags::PENDING.union(EpcmFlags::MODIFIED);
const READ_WRITE: EpcmFlags = EpcmFlags::R.union(EpcmFlags::W);

/// The pages of an SSA frame, latched by index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) xsave_pages: [EpcIndex; XSAVE_PAGES],
    pub(super) gpr_page: EpcIndex,
}

/// FS and GS as the entry will load them.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadSegments {
    fs_base: u64,
    gs_base: u64,
}

/// An entry whose common checks passed so far.
pub(super) struct Entry<'a> {
    platform: &'a Platform,
    claim: TcsClaim<'a>,
    _lock: Lock<'a>,
    tcs_page: EpcPage<'a>,
    tcs_index: EpcIndex,
    tcs_la: u64,
    secs_index: EpcIndex,
    counted: CountedIn<'a>,
    pub(super) tcs: Tcs,
    pub(super) base: u64,
    size: u64,
    pub(super) attributes: Attributes,
    miscselect: u32,
    ssaframesize: u32,
}

impl<'a> Entry<'a> {
    /// From the first check to the one on AEXNOTIFY: RBX holds the TCS, RCX the AEP.
    pub(super) fn begin(
        platform: &'a Platform,
        port: &mut impl LeafPort,
        cpu: &ProcessorState,
    ) -> Result<Self, Stop> {
        if !cpu.mode64 {
            check_segments(cpu)?;
        }
        let la = linear_aligned(port, cpu.gpr[Gpr::Rbx], 4096, 4096)?;
        let target = EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::User)?;
        // The AEP is canonical.
        if cpu.mode64 && !is_canonical(cpu.gpr[Gpr::Rcx]) {
            return Err(GP);
        }
        let entry = platform.entry(target.index);
        let lock = entry.try_shared().ok_or(GP)?;

        // TCS verification.
        let view = entry.view();
        if !view.valid()
            || view.flags.contains(EpcmFlags::BLOCKED)
            || view.address != la.0
            || view.page_type != PageType::Tcs
            || view.flags.intersects(NOT_ACCESSIBLE)
        {
            return Err(target.page_fault().into());
        }
        let tcs_page = platform.page(target.index);
        let claim = TcsClaim::take(tcs_page);
        let tcs = read_tcs(tcs_page);
        if !tcs.ossa.get().is_multiple_of(4096) {
            return Err(GP);
        }
        if !tcs.ofsbase.get().is_multiple_of(4096) || !tcs.ogsbase.get().is_multiple_of(4096) {
            return Err(GP);
        }
        // Reserved bits; AEXNOTIFY is one where CPUID does not announce it.
        let mut known = TcsFlags::DBGOPTIN;
        if port.capabilities().attributes.contains(AttributeFlags::AEXNOTIFY) {
            known |= TcsFlags::AEXNOTIFY;
        }
        if tcs.flags.get() & !known.bits() != 0 {
            return Err(GP);
        }

        // The SECS: present for as long as its child, the TCS, is.
        let secs_page = platform.page(view.secs);
        let attributes = Attributes {
            flags: secs_page.load(Secs::ATTRIBUTES).into(),
            xfrm: secs_page.load(Secs::ATTRIBUTES + 8).into(),
        };
        if !attributes.has(AttributeFlags::INIT) {
            return Err(GP);
        }
        if cpu.mode64 != attributes.has(AttributeFlags::MODE64BIT) {
            return Err(GP);
        }
        if !cpu.osfxsr {
            return Err(GP);
        }
        let xfrm = attributes.xfrm.get();
        let xfrm_enabled = if cpu.osxsave { xfrm & cpu.xcr0 == xfrm } else { xfrm == 3 };
        if !xfrm_enabled {
            return Err(GP);
        }
        let flags = TcsFlags::from_bits_truncate(tcs.flags.get());
        if !flags.contains(TcsFlags::DBGOPTIN)
            && flags.contains(TcsFlags::AEXNOTIFY) != attributes.has(AttributeFlags::AEXNOTIFY)
        {
            return Err(GP);
        }
        let frame = secs_page.load(Secs::SSAFRAMESIZE);
        Ok(Self {
            platform,
            claim,
            _lock: lock,
            tcs_page,
            tcs_index: target.index,
            tcs_la: la.0,
            secs_index: view.secs,
            counted: CountedIn::take(platform.entry(view.secs))?,
            tcs,
            base: secs_page.load(Secs::BASEADDR),
            size: secs_page.load(Secs::SIZE),
            attributes,
            miscselect: (frame >> 32) as u32,
            ssaframesize: frame as u32,
        })
    }

    /// Latches SSA frame number `index` after checking each of its pages.
    pub(super) fn latch_frame(&self, port: &mut impl LeafPort, index: u32) -> Result<Frame, Stop> {
        let geometry = FrameGeometry {
            secs: self.secs_index,
            ssa_base: self.tcs.ossa.get().wrapping_add(self.base),
            ssaframesize: self.ssaframesize,
            xfrm: self.attributes.xfrm.get(),
        };
        latch_frame(self.platform, port, &geometry, index)
    }

    /// The GPRSGX page of a latched frame.
    pub(super) fn page(&self, index: EpcIndex) -> EpcPage<'a> {
        self.platform.page(index)
    }

    /// OENTRY as an address.
    pub(super) const fn entry_point(&self) -> u64 {
        self.tcs.oentry.get().wrapping_add(self.base)
    }

    /// "Check proposed FS/GS segments": within DS outside 64-bit mode, canonical in it. `saved`
    /// are the bases that ERESUME takes from the SSA frame.
    pub(super) fn thread_segments(
        &self,
        cpu: &ProcessorState,
        saved: Option<(u64, u64)>,
    ) -> Result<ThreadSegments, Stop> {
        let fs = self.tcs.ofsbase.get().wrapping_add(self.base);
        let gs = self.tcs.ogsbase.get().wrapping_add(self.base);
        if cpu.mode64 {
            let (fs_base, gs_base) = saved.unwrap_or((fs, gs));
            if !is_canonical(fs_base) || !is_canonical(gs_base) {
                return Err(GP);
            }
            return Ok(ThreadSegments { fs_base, gs_base });
        }
        for (base, limit) in [(fs, self.tcs.fslimit.get()), (gs, self.tcs.gslimit.get())] {
            let first = base as u32;
            let last = first.wrapping_add(limit);
            // A segment that wraps around needs a DS without holes.
            let fits = if last < first { cpu.ds.limit == u32::MAX } else { last <= cpu.ds.limit };
            if !fits {
                return Err(GP);
            }
        }
        Ok(ThreadSegments { fs_base: fs & 0xffff_ffff, gs_base: gs & 0xffff_ffff })
    }

    /// "Ensure the enclave is not already active and this thread is the only one using the TCS".
    pub(super) const fn check_inactive(&self) -> Result<(), Stop> {
        if self.claim.held() { Ok(()) } else { Err(GP) }
    }

    /// Enters, with RCX still the AEP: from here on the processor is in enclave mode. The general
    /// registers, RIP and the flags other than TF are the caller's to load. Returns whether the
    /// entry is opted in to debugging.
    pub(super) fn commit(
        self,
        state: &mut EnclaveState,
        cpu: &mut ProcessorState,
        frame: Frame,
        segments: ThreadSegments,
        entry_tf: bool,
    ) -> bool {
        let dbgoptin = self.tcs.flags.get() & TcsFlags::DBGOPTIN.bits() != 0;
        // CR_TCS_LA.AEP.
        let mask = if cpu.mode64 { u64::MAX } else { 0xffff_ffff };
        self.tcs_page.store(tcs::AEP, cpu.gpr[Gpr::Rcx] & mask);
        state.active = Some(ActiveEnclave {
            secs: self.secs_index,
            tcs: self.tcs_index,
            tcs_la: self.tcs_la,
            base: self.base,
            size: self.size,
            attributes: self.attributes,
            miscselect: self.miscselect,
            ssaframesize: self.ssaframesize,
            xsave_pages: frame.xsave_pages,
            gpr_page: frame.gpr_page,
            saved_fs: cpu.fs,
            saved_gs: cpu.gs,
            saved_xcr0: cpu.osxsave.then_some(cpu.xcr0),
            saved_tf: entry_tf,
            dbgoptin,
            epoch: self.counted.keep(),
        });
        if cpu.osxsave {
            cpu.xcr0 = self.attributes.xfrm.get();
        }
        let rights = thread_segment_rights(cpu.ds.rights);
        cpu.fs = Segment {
            selector: 0x0b,
            base: segments.fs_base,
            limit: self.tcs.fslimit.get(),
            rights,
        };
        cpu.gs = Segment {
            selector: 0x0b,
            base: segments.gs_base,
            limit: self.tcs.gslimit.get(),
            rights,
        };
        if !dbgoptin {
            cpu.rflags &= !Rflags::TF.bits();
        }
        self.claim.keep();
        dbgoptin
    }

    /// The page of the TCS.
    pub(super) const fn tcs_page(&self) -> EpcPage<'a> {
        self.tcs_page
    }
}

/// TCS.CSSA.
pub(super) fn set_cssa(tcs_page: EpcPage<'_>, cssa: u32) {
    tcs_page.write(tcs::CSSA, &cssa.to_le_bytes());
}

/// Where the SSA frames of a thread lie.
pub(super) struct FrameGeometry {
    /// The SECS that owns the frames.
    pub(super) secs: EpcIndex,
    /// Linear address of frame 0.
    pub(super) ssa_base: u64,
    /// Pages in a frame.
    pub(super) ssaframesize: u32,
    /// State components that the frame holds.
    pub(super) xfrm: u64,
}

/// Checks the pages of SSA frame number `index` that hold XSAVE area and GPRSGX region, in that
/// order, and returns them.
pub(super) fn latch_frame(
    platform: &Platform,
    port: &mut impl LeafPort,
    geometry: &FrameGeometry,
    index: u32,
) -> Result<Frame, Stop> {
    let frame_size = u64::from(geometry.ssaframesize) * 4096;
    let ssa = geometry.ssa_base.wrapping_add(frame_size.wrapping_mul(u64::from(index)));
    let area = area_size(geometry.xfrm);
    let mut xsave_pages = [EpcIndex(0); XSAVE_PAGES];
    for (number, latched) in xsave_pages.iter_mut().enumerate().take(area.div_ceil(4096)) {
        let la = port.linear(ssa.wrapping_add(number as u64 * 4096), 1)?;
        *latched = check_ssa_page(platform, port, geometry.secs, la)?;
    }
    let gpr = ssa.wrapping_add(frame_size).wrapping_sub(gprsgx::SIZE as u64);
    let la = port.linear(gpr, 1)?;
    let gpr_page = check_ssa_page(platform, port, geometry.secs, la)?;
    // Outside 64-bit mode the end of the region is in the DS segment, too; in it, a region that
    // begins in a page at a canonical address ends there.
    port.linear(gpr.wrapping_add(gprsgx::SIZE as u64 - 1), 1)?;
    Ok(Frame { xsave_pages, gpr_page })
}

/// A page of an SSA frame is a regular page of the enclave, at its own address, readable and
/// writable through both page tables and EPCM. Faults are reported at `la`.
fn check_ssa_page(
    platform: &Platform,
    port: &mut impl LeafPort,
    secs: EpcIndex,
    la: La,
) -> Result<EpcIndex, Stop> {
    let page = EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::User)?;
    let view = platform.entry(page.index).view();
    if view.is(PageType::Reg)
        && !view.flags.contains(EpcmFlags::BLOCKED)
        && !view.flags.intersects(NOT_ACCESSIBLE)
        && view.address == la.page().0
        && view.secs == secs
        && view.flags.contains(READ_WRITE)
    {
        Ok(page.index)
    } else {
        Err(page.page_fault().into())
    }
}

/// Outside 64-bit mode: DS usable and not expand-down; CS, DS and, where usable, ES and SS have
/// base 0; SS, where usable, is a 32-bit segment.
fn check_segments(cpu: &ProcessorState) -> Result<(), Stop> {
    let ds = cpu.ds.rights;
    let expand_down = ds.is_code_or_data() && !ds.is_code() && ds.bit_ec();
    let flat = |segment: &Segment| segment.rights.unusable() || segment.base == 0;
    if ds.unusable()
        || expand_down
        || cpu.cs.base != 0
        || cpu.ds.base != 0
        || !flat(&cpu.es)
        || !flat(&cpu.ss)
        || (!cpu.ss.rights.unusable() && !cpu.ss.rights.big())
    {
        return Err(GP);
    }
    Ok(())
}

/// A jump target is canonical in 64-bit mode and within CS outside it.
pub(super) fn check_target(cpu: &ProcessorState, target: u64) -> Result<u64, Stop> {
    if cpu.mode64 {
        return if is_canonical(target) { Ok(target) } else { Err(GP) };
    }
    match u32::try_from(target) {
        Ok(offset) if offset <= cpu.cs.limit => Ok(target),
        _ => Err(GP),
    }
}

/// Access rights of FS and GS after entry: accessed data, present, 32-bit, page granular; the
/// rest as in DS.
const fn thread_segment_rights(ds: Rights) -> Rights {
    let from_ds = ds.0 & (Rights::RW | Rights::DPL | Rights::AVL | Rights::L);
    Rights(1 | Rights::S | Rights::P | Rights::DB | Rights::G | from_ds)
}

/// A copy of the TCS in `page`.
pub(super) fn read_tcs(page: EpcPage<'_>) -> Tcs {
    let mut tcs = Tcs::new_zeroed();
    page.read(0, tcs.as_mut_bytes());
    tcs
}
