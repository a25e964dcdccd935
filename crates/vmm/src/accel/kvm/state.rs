//! A processor's architectural state, to KVM and from it.
//!
//! KVM holds more than [`ArchState`] has: state components beyond AVX, the local APIC, events under way.
//! What is written is therefore read first, and what `ArchState` does not know stays.
//! Two things of `ArchState` have no counterpart: debug traps that are pending (KVM delivers them before it
//! returns) and VMX operation, which is the nested hypervisor's business in KVM.

use cloister_cpu::{Activity, ArchState, Msrs, Shadow};
use cloister_x86::regs::{Cr0, Cr4, Efer, Xfeatures};
use cloister_x86::segment::seg;
use cloister_x86::{Gpr, Rights, Segment, TableRegister, msr};
use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED, KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_SHADOW,
    KVM_X86_SHADOW_INT_MOV_SS, KVM_X86_SHADOW_INT_STI, kvm_debugregs, kvm_dtable, kvm_mp_state,
    kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::VcpuFd;

use super::msrs;
use super::xsave;
use crate::accel::VcpuError;

/// Extended control register 0.
const XCR0: u32 = 0;

fn failed(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VcpuError {
    move |error| VcpuError::kvm(what, error)
}

/// Reads the state of a processor that does not run.
///
/// # Errors
///
/// [`VcpuError::Kvm`].
pub(super) fn get(vcpu: &VcpuFd) -> Result<ArchState, VcpuError> {
    let regs = vcpu.get_regs().map_err(failed("KVM_GET_REGS"))?;
    let sregs = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    let debug = vcpu.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?;
    let events = vcpu.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?;
    let activity = vcpu.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?;
    let mut state = ArchState::at_reset(true);
    get_general(&regs, &mut state);
    get_system(&sregs, &mut state);
    (state.dr, state.dr6, state.dr7) = (debug.db, debug.dr6, debug.dr7);
    let shadow = u32::from(events.interrupt.shadow);
    state.shadow = match shadow {
        0 => Shadow::None,
        bits if bits & KVM_X86_SHADOW_INT_MOV_SS != 0 => Shadow::MovSs,
        _ => Shadow::Sti,
    };
    state.nmi_blocked = events.nmi.masked != 0;
    state.activity = match activity.mp_state {
        KVM_MP_STATE_HALTED => Activity::Halted,
        KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED | KVM_MP_STATE_SIPI_RECEIVED => {
            Activity::WaitForSipi
        }
        _ => Activity::Active,
    };
    state.xcr0 = xcr0(vcpu)?;
    let xsave = vcpu.get_xsave().map_err(failed("KVM_GET_XSAVE"))?;
    xsave::get(&xsave.region, &mut state);
    for (index, place) in STORED {
        *place(&mut state.msrs) = msrs::get(vcpu, index)?.unwrap_or_default();
    }
    Ok(state)
}

/// Replaces the state of a processor that does not run.
///
/// # Errors
///
/// [`VcpuError::Kvm`]; the state may have been replaced in part.
pub(super) fn set(vcpu: &VcpuFd, state: &ArchState) -> Result<(), VcpuError> {
    let mut sregs = vcpu.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    set_system(state, &mut sregs);
    vcpu.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
    vcpu.set_regs(&general(state)).map_err(failed("KVM_SET_REGS"))?;
    // Before the state components that it enables. A host without XSAVE has none.
    if let Ok(mut xcrs) = vcpu.get_xcrs() {
        if let Some(xcr) = xcrs.xcrs.iter_mut().find(|xcr| xcr.xcr == XCR0) {
            xcr.value = state.xcr0.bits();
        }
        vcpu.set_xcrs(&xcrs).map_err(failed("KVM_SET_XCRS"))?;
    }
    let mut xsave = vcpu.get_xsave().map_err(failed("KVM_GET_XSAVE"))?;
    xsave::set(state, &mut xsave.region);
    xsave::put(vcpu, &xsave).map_err(failed("KVM_SET_XSAVE"))?;
    let mut values = state.msrs.clone();
    let stored = STORED.map(|(index, place)| (index, *place(&mut values)));
    msrs::set(vcpu, &stored)?;
    let debug =
        kvm_debugregs { db: state.dr, dr6: state.dr6, dr7: state.dr7, ..Default::default() };
    vcpu.set_debug_regs(&debug).map_err(failed("KVM_SET_DEBUGREGS"))?;
    let mut events = vcpu.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))?;
    events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
    events.interrupt.shadow = match state.shadow {
        Shadow::None => 0,
        Shadow::Sti => low_byte(KVM_X86_SHADOW_INT_STI),
        Shadow::MovSs => low_byte(KVM_X86_SHADOW_INT_MOV_SS),
    };
    events.nmi.masked = state.nmi_blocked.into();
    vcpu.set_vcpu_events(&events).map_err(failed("KVM_SET_VCPU_EVENTS"))?;
    let mp_state = match state.activity {
        Activity::Active => KVM_MP_STATE_RUNNABLE,
        Activity::Halted => KVM_MP_STATE_HALTED,
        Activity::WaitForSipi => KVM_MP_STATE_UNINITIALIZED,
    };
    vcpu.set_mp_state(kvm_mp_state { mp_state }).map_err(failed("KVM_SET_MP_STATE"))
}

/// MSRs that are plain storage, and where [`Msrs`] has them.
type Stored = (u32, fn(&mut Msrs) -> &mut u64);
const STORED: [Stored; 12] = [
    (msr::STAR, |msrs| &mut msrs.star),
    (msr::LSTAR, |msrs| &mut msrs.lstar),
    (msr::CSTAR, |msrs| &mut msrs.cstar),
    (msr::FMASK, |msrs| &mut msrs.fmask),
    (msr::KERNEL_GS_BASE, |msrs| &mut msrs.kernel_gs_base),
    (msr::TSC_AUX, |msrs| &mut msrs.tsc_aux),
    (msr::TSC_ADJUST, |msrs| &mut msrs.tsc_offset),
    (msr::SYSENTER_CS, |msrs| &mut msrs.sysenter_cs),
    (msr::SYSENTER_ESP, |msrs| &mut msrs.sysenter_esp),
    (msr::SYSENTER_EIP, |msrs| &mut msrs.sysenter_eip),
    (msr::PAT, |msrs| &mut msrs.pat),
    (msr::DEBUGCTL, |msrs| &mut msrs.debugctl),
];

fn xcr0(vcpu: &VcpuFd) -> Result<Xfeatures, VcpuError> {
    // A host without XSAVE has none.
    let Ok(xcrs) = vcpu.get_xcrs() else { return Ok(Xfeatures::X87) };
    let count = (xcrs.nr_xcrs as usize).min(xcrs.xcrs.len());
    let xcr0 = xcrs.xcrs[..count].iter().find(|xcr| xcr.xcr == XCR0);
    Ok(xcr0.map_or(Xfeatures::X87, |xcr| Xfeatures::from_bits_retain(xcr.value)))
}

fn get_general(regs: &kvm_regs, state: &mut ArchState) {
    for (register, value) in [
        (Gpr::Rax, regs.rax),
        (Gpr::Rbx, regs.rbx),
        (Gpr::Rcx, regs.rcx),
        (Gpr::Rdx, regs.rdx),
        (Gpr::Rsi, regs.rsi),
        (Gpr::Rdi, regs.rdi),
        (Gpr::Rbp, regs.rbp),
        (Gpr::Rsp, regs.rsp),
        (Gpr::R8, regs.r8),
        (Gpr::R9, regs.r9),
        (Gpr::R10, regs.r10),
        (Gpr::R11, regs.r11),
        (Gpr::R12, regs.r12),
        (Gpr::R13, regs.r13),
        (Gpr::R14, regs.r14),
        (Gpr::R15, regs.r15),
    ] {
        state.gpr[register] = value;
    }
    state.rip = regs.rip;
    state.set_rflags(regs.rflags);
}

fn general(state: &ArchState) -> kvm_regs {
    let gpr = &state.gpr;
    kvm_regs {
        rax: gpr[Gpr::Rax],
        rbx: gpr[Gpr::Rbx],
        rcx: gpr[Gpr::Rcx],
        rdx: gpr[Gpr::Rdx],
        rsi: gpr[Gpr::Rsi],
        rdi: gpr[Gpr::Rdi],
        rbp: gpr[Gpr::Rbp],
        rsp: gpr[Gpr::Rsp],
        r8: gpr[Gpr::R8],
        r9: gpr[Gpr::R9],
        r10: gpr[Gpr::R10],
        r11: gpr[Gpr::R11],
        r12: gpr[Gpr::R12],
        r13: gpr[Gpr::R13],
        r14: gpr[Gpr::R14],
        r15: gpr[Gpr::R15],
        rip: state.rip,
        rflags: state.rflags(),
    }
}

fn get_system(sregs: &kvm_sregs, state: &mut ArchState) {
    for (at, segment) in [
        (seg::ES, &sregs.es),
        (seg::CS, &sregs.cs),
        (seg::SS, &sregs.ss),
        (seg::DS, &sregs.ds),
        (seg::FS, &sregs.fs),
        (seg::GS, &sregs.gs),
        (seg::TR, &sregs.tr),
        (seg::LDTR, &sregs.ldt),
    ] {
        state.segs[at] = from_kvm(segment);
    }
    // On Intel the processor's level is SS.DPL (SDM Vol. 3C, 24.4.1), and KVM keeps it there on AMD.
    state.cpl = sregs.ss.dpl & 3;
    let table = |table: &kvm_dtable| TableRegister { base: table.base, limit: table.limit };
    (state.gdtr, state.idtr) = (table(&sregs.gdt), table(&sregs.idt));
    state.cr0 = Cr0::from_bits_retain(sregs.cr0);
    (state.cr2, state.cr3) = (sregs.cr2, sregs.cr3);
    state.cr4 = Cr4::from_bits_retain(sregs.cr4);
    state.efer = Efer::from_bits_retain(sregs.efer);
}

/// CR8, the APIC base and a pending interrupt stay; the PDPTEs are loaded from memory again.
fn set_system(state: &ArchState, sregs: &mut kvm_sregs) {
    for (at, segment) in [
        (seg::ES, &mut sregs.es),
        (seg::CS, &mut sregs.cs),
        (seg::SS, &mut sregs.ss),
        (seg::DS, &mut sregs.ds),
        (seg::FS, &mut sregs.fs),
        (seg::GS, &mut sregs.gs),
        (seg::TR, &mut sregs.tr),
        (seg::LDTR, &mut sregs.ldt),
    ] {
        *segment = to_kvm(&state.segs[at]);
    }
    let table = |table: TableRegister| kvm_dtable {
        base: table.base,
        limit: table.limit,
        ..Default::default()
    };
    (sregs.gdt, sregs.idt) = (table(state.gdtr), table(state.idtr));
    sregs.cr0 = state.cr0.bits();
    (sregs.cr2, sregs.cr3) = (state.cr2, state.cr3);
    sregs.cr4 = state.cr4.bits();
    sregs.efer = state.efer.bits();
}

fn from_kvm(segment: &kvm_segment) -> Segment {
    let bit = |bit: u8, mask: u32| if bit == 0 { 0 } else { mask };
    let rights = u32::from(segment.type_ & 0xf)
        | bit(segment.s, Rights::S)
        | u32::from(segment.dpl & 3) << 5
        | bit(segment.present, Rights::P)
        | bit(segment.avl, Rights::AVL)
        | bit(segment.l, Rights::L)
        | bit(segment.db, Rights::DB)
        | bit(segment.g, Rights::G)
        | bit(segment.unusable, Rights::UNUSABLE);
    Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        rights: Rights(rights),
    }
}

fn to_kvm(segment: &Segment) -> kvm_segment {
    let rights = segment.rights;
    let bit = |mask: u32| u8::from(rights.0 & mask != 0);
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: low_byte(rights.kind()),
        present: bit(Rights::P),
        dpl: rights.dpl(),
        db: bit(Rights::DB),
        s: bit(Rights::S),
        l: bit(Rights::L),
        g: bit(Rights::G),
        avl: bit(Rights::AVL),
        unusable: bit(Rights::UNUSABLE),
        padding: 0,
    }
}

const fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_survives_the_way_to_kvm_and_back() {
        for rights in [0xa09b, 0xc093, 0x8b, 0x1_0000, 0xd0fb, 0x0000] {
            let segment =
                Segment { selector: 0x33, base: 0x1234, limit: 0xf_ffff, rights: Rights(rights) };

            assert_eq!(from_kvm(&to_kvm(&segment)), segment, "{rights:#x}");
        }
    }

    #[test]
    fn general_registers_survive_the_way_to_kvm_and_back() {
        let mut state = ArchState::at_reset(true);
        for n in 0..Gpr::COUNT {
            state.gpr[n] = 0x1000 + n as u64;
        }
        state.rip = 0xffff_8000_0000_1234;
        state.set_rflags(0x246);
        let mut back = ArchState::at_reset(true);

        get_general(&general(&state), &mut back);

        assert_eq!((back.gpr, back.rip), (state.gpr.clone(), state.rip));
        assert_eq!(back.flags.bits() | back.system_flags.bits(), 0x244);
    }
}
