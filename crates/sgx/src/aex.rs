//! Asynchronous enclave exit (SDM Vol. 3D, chapter 37).

use core::mem::offset_of;
use core::sync::atomic::Ordering;

use cloister_x86::regs::Rflags;
use cloister_x86::{Exception, Gpr, PageFaultCode, Vector};

use crate::attributes::MISCSELECT_EXINFO;
use crate::epc::EpcPage;
use crate::layout::{GprSgx, gprsgx, tcs};
use crate::platform::Platform;
use crate::processor::ProcessorState;
use crate::state::{ActiveEnclave, EnclaveState};
use crate::xsave::{XsaveArea, stored_ranges};

/// ENCLU leaf number of ERESUME, which AEX leaves in RAX.
const ERESUME: u64 = 3;

/// The event that ends enclave execution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitingEvent {
    /// An exception that the enclave's execution raised.
    Exception(Exception),
    /// An external interrupt, NMI, SMI, machine check, INIT or VM exit.
    Interrupt,
}

/// The state that an AEX leaves for the processor to load, beside the registers that it replaced
/// in the [`ProcessorState`] (SDM Vol. 3D, table 37-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SyntheticState {
    /// State components to put into their INIT state.
    pub init: u64,
    /// FCW to load after that.
    pub fcw: u16,
    /// FSW to load after that.
    pub fsw: u16,
    /// MXCSR to load after that.
    pub mxcsr: u32,
    /// The event to deliver in place of the one that caused the AEX: the same, but for a page
    /// fault, whose address (the new CR2) has its low 12 bits clear.
    pub event: ExitingEvent,
}

/// Leaves the enclave because of `event`: saves the processor's state in the current SSA frame,
/// replaces it with the synthetic state and ends enclave mode. `None`, and nothing is changed,
/// if the processor is not in an enclave.
///
/// `xsave` holds what XSAVE would store for the state components [`EnclaveState::xfrm`], in
/// 64-bit mode as with REX.W; `cpu.rip` and `cpu.rflags` are what the event would push. After the
/// call the processor loads `cpu` and the returned state, flushes all cached translations, and
/// delivers [`SyntheticState::event`] as usual.
pub fn aex(
    platform: &Platform,
    state: &mut EnclaveState,
    cpu: &mut ProcessorState,
    event: ExitingEvent,
    xsave: &mut XsaveArea,
) -> Option<SyntheticState> {
    let enclave = state.active.take()?;
    let xfrm = enclave.attributes.xfrm.get();
    let gpr_page = platform.page(enclave.gpr_page);

    // SDM Vol. 3D, 37.4, item 1: registers into GPRSGX, with TF clear.
    let flags = cpu.rflags & !Rflags::TF.bits();
    if cpu.mode64 {
        for (register, value) in cpu.gpr.iter().enumerate() {
            gpr_page.store(gprsgx::OFFSET + register * 8, *value);
        }
        gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, rflags), flags);
        gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, rip), cpu.rip);
    } else {
        // Only the low halves of the eight legacy registers are stored.
        let low = |at: usize, value: u64| {
            gpr_page.write(gprsgx::OFFSET + at, &(value as u32).to_le_bytes());
        };
        for (register, value) in cpu.gpr.iter().take(8).enumerate() {
            low(register * 8, *value);
        }
        low(offset_of!(GprSgx, rflags), flags);
        low(offset_of!(GprSgx, rip), cpu.rip);
    }
    gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, fsbase), cpu.fs.base);
    gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, gsbase), cpu.gs.base);

    // Extended state into the XSAVE region.
    xsave.confine_header(xfrm);
    let xsave_page = platform.page(enclave.xsave_pages[0]);
    for range in stored_ranges(xfrm) {
        xsave_page.write(range.start, &xsave.image(xfrm)[range]);
    }

    // The cause, into EXITINFO and, if selected, EXINFO.
    let report = Report::of(event, enclave.miscselect);
    gpr_page.write(gprsgx::OFFSET + offset_of!(GprSgx, exitinfo), &report.exitinfo.to_le_bytes());
    if let Some((maddr, errcd)) = report.exinfo {
        gpr_page.store(gprsgx::EXINFO, maddr);
        gpr_page.store(gprsgx::EXINFO + 8, u64::from(errcd));
    }

    // SDM Vol. 3D, table 37-1: synthetic state.
    let tcs_page = platform.page(enclave.tcs);
    let aep = tcs_page.load(tcs::AEP);
    let mask = if cpu.mode64 { u64::MAX } else { 0xffff_ffff };
    cpu.gpr[Gpr::Rax] = ERESUME;
    cpu.gpr[Gpr::Rbx] = enclave.tcs_la;
    cpu.gpr[Gpr::Rcx] = aep;
    cpu.gpr[Gpr::Rdx] = 0;
    cpu.gpr[Gpr::Rsi] = 0;
    cpu.gpr[Gpr::Rdi] = 0;
    cpu.gpr[Gpr::Rsp] = gpr_page.load(gprsgx::OFFSET + offset_of!(GprSgx, ursp)) & mask;
    cpu.gpr[Gpr::Rbp] = gpr_page.load(gprsgx::OFFSET + offset_of!(GprSgx, urbp)) & mask;
    if cpu.mode64 {
        cpu.gpr[8..].fill(0);
    }
    cpu.rip = aep;
    let cleared =
        Rflags::CF | Rflags::PF | Rflags::AF | Rflags::ZF | Rflags::SF | Rflags::OF | Rflags::RF;
    cpu.rflags &= !cleared.bits();
    // Push the SSA stack; the TCS can be entered again.
    let cssa = tcs_page.load(tcs::CSSA) as u32;
    tcs_page.write(tcs::CSSA, &cssa.wrapping_add(1).to_le_bytes());
    release_tcs(tcs_page);
    // Last: from here on the pages of the frame may be evicted.
    leave(platform, &enclave, cpu);
    Some(SyntheticState {
        init: xfrm,
        fcw: if is(event, Vector::Mf) { 0x037e } else { 0x037f },
        fsw: if is(event, Vector::Mf) { 0x8081 } else { 0 },
        mxcsr: if is(event, Vector::Xm) { 0x1f01 } else { 0x1fb0 },
        event: hide_offset(event),
    })
}

fn is(event: ExitingEvent, vector: Vector) -> bool {
    matches!(event, ExitingEvent::Exception(exception) if exception.vector == vector)
}

/// The low 12 bits of CR2 are cleared if the event is a page fault (SDM Vol. 3D, table 37-1).
fn hide_offset(event: ExitingEvent) -> ExitingEvent {
    match event {
        ExitingEvent::Exception(exception) if exception.vector == Vector::Pf => {
            ExitingEvent::Exception(Exception { address: exception.address & !0xfff, ..exception })
        }
        other => other,
    }
}

/// What enclave software learns of the cause.
struct Report {
    exitinfo: u32,
    exinfo: Option<(u64, u32)>,
}

impl Report {
    /// SDM Vol. 3D, tables 35-9, 35-10 and 35-12. Causes that are not reported leave a clear
    /// EXITINFO and an untouched EXINFO.
    fn of(event: ExitingEvent, miscselect: u32) -> Self {
        let none = Self { exitinfo: 0, exinfo: None };
        let ExitingEvent::Exception(exception) = event else { return none };
        let hardware =
            gprsgx::EXITINFO_VALID | gprsgx::EXIT_TYPE_HARDWARE | exception.vector as u32;
        match exception.vector {
            Vector::De
            | Vector::Db
            | Vector::Br
            | Vector::Ud
            | Vector::Mf
            | Vector::Ac
            | Vector::Xm => Self { exitinfo: hardware, exinfo: None },
            Vector::Bp => Self {
                exitinfo: gprsgx::EXITINFO_VALID | gprsgx::EXIT_TYPE_SOFTWARE | Vector::Bp as u32,
                exinfo: None,
            },
            Vector::Gp if miscselect & MISCSELECT_EXINFO != 0 => {
                Self { exitinfo: hardware, exinfo: Some((0, exception.error_code)) }
            }
            // Page faults that report U/S = 0 are not reported (table 35-13, note 1).
            Vector::Pf
                if miscselect & MISCSELECT_EXINFO != 0
                    && exception.error_code & PageFaultCode::USER.bits() != 0 =>
            {
                Self { exitinfo: hardware, exinfo: Some((exception.address, exception.error_code)) }
            }
            _ => none,
        }
    }
}

/// TCS.STATE: the TCS can be entered again, by a processor that then sees all that this one
/// stored in it.
pub(crate) fn release_tcs(tcs_page: EpcPage<'_>) {
    tcs_page.words[tcs::STATE / 8].store(tcs::INACTIVE.to_le(), Ordering::Release);
}

/// What AEX and EEXIT have in common: FS, GS, XCR0 and TF are those of the time of entry, and the
/// processor no longer counts as inside.
pub(crate) fn leave(platform: &Platform, enclave: &ActiveEnclave, cpu: &mut ProcessorState) {
    cpu.fs = enclave.saved_fs;
    cpu.gs = enclave.saved_gs;
    if let Some(xcr0) = enclave.saved_xcr0 {
        cpu.xcr0 = xcr0;
    }
    if !enclave.dbgoptin {
        cpu.rflags &= !Rflags::TF.bits();
        if enclave.saved_tf {
            cpu.rflags |= Rflags::TF.bits();
        }
    }
    enclave.count_out(platform);
}
