//! ENCLU\[ERESUME\] (SDM Vol. 3D, 38.4, ERESUME): continues an enclave after an AEX.

use core::mem::offset_of;

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;
use zerocopy::IntoBytes as _;

use crate::enclu::entry::{Entry, check_target, set_cssa};
use crate::enclu::{EncluOutcome, Stepping};
use crate::epc::EpcPage;
use crate::layout::{GprSgx, TcsFlags, gprsgx};
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::{LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;
use crate::xsave::XsaveArea;

/// RBX: the TCS; RCX: the AEP. The registers come from the SSA frame, unless the thread asked to
/// be notified of the AEX: then ERESUME enters at the entry point as EENTER does.
pub(super) fn leaf(
    platform: &Platform,
    state: &mut EnclaveState,
    port: &mut impl LeafPort,
    cpu: &mut ProcessorState,
    xsave: &mut XsaveArea,
) -> Result<EncluOutcome, Stop> {
    let entry = Entry::begin(platform, port, cpu)?;
    let cssa = entry.tcs.cssa.get();
    // The SSA has at least one active frame.
    let Some(top) = cssa.checked_sub(1) else { return Err(GP) };
    let mut frame = entry.latch_frame(port, top)?;
    let saved = read_gprsgx(entry.page(frame.gpr_page));
    let notify =
        entry.tcs.flags.get() & TcsFlags::AEXNOTIFY.bits() != 0 && saved.aexnotify & 1 != 0;
    let target = if notify {
        if cssa >= entry.tcs.nssa.get() {
            return Err(GP);
        }
        frame = entry.latch_frame(port, cssa)?;
        entry.entry_point()
    } else if cpu.mode64 {
        saved.rip.get()
    } else {
        saved.rip.get() & 0xffff_ffff
    };
    let target = check_target(cpu, target)?;
    let saved_bases = (!notify).then(|| (saved.fsbase.get(), saved.gsbase.get()));
    let segments = entry.thread_segments(cpu, saved_bases)?;
    entry.check_inactive()?;
    let xfrm = entry.attributes.xfrm.get();
    if !notify {
        entry.page(frame.xsave_pages[0]).read(0, xsave.image_mut(xfrm));
        // XRSTOR would fail with #GP.
        if !xsave.loadable(xfrm) {
            return Err(GP);
        }
    }

    let gpr_page = entry.page(frame.gpr_page);
    // The TF that the exit brings back is the one at entry (SDM Vol. 3D, 40.2.3.1); the
    // pseudo-code clears it before saving it.
    let tf = cpu.rflags & Rflags::TF.bits() != 0;
    if notify {
        let dbgoptin = entry.commit(state, cpu, frame, segments, tf);
        gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, ursp), cpu.gpr[Gpr::Rsp]);
        gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, urbp), cpu.gpr[Gpr::Rbp]);
        cpu.gpr[Gpr::Rax] = u64::from(cssa);
        // RIP was replaced before, so RCX receives the entry point.
        cpu.rip = target;
        cpu.gpr[Gpr::Rcx] = target;
        return Ok(EncluOutcome {
            flush: true,
            xrstor: None,
            stepping: if dbgoptin { Stepping::Usual } else { Stepping::Suppressed },
        });
    }
    let tcs_page = entry.tcs_page();
    entry.commit(state, cpu, frame, segments, tf);
    set_cssa(tcs_page, top);
    restore_registers(cpu, &saved);
    cpu.rip = target;
    Ok(EncluOutcome { flush: true, xrstor: Some(xfrm), stepping: Stepping::Suppressed })
}

/// Restore_GPRs and the flags that ERESUME takes from the frame.
fn restore_registers(cpu: &mut ProcessorState, saved: &GprSgx) {
    if cpu.mode64 {
        for (register, value) in cpu.gpr.iter_mut().zip(saved.gpr) {
            *register = value.get();
        }
    } else {
        for (register, value) in cpu.gpr.iter_mut().zip(saved.gpr).take(8) {
            *register = value.get() & 0xffff_ffff;
        }
    }
    let mut restored = Rflags::CF
        | Rflags::PF
        | Rflags::AF
        | Rflags::ZF
        | Rflags::SF
        | Rflags::DF
        | Rflags::OF
        | Rflags::NT
        | Rflags::AC
        | Rflags::ID
        | Rflags::RF;
    if Rflags::from_bits_truncate(cpu.rflags).contains(Rflags::IOPL0 | Rflags::IOPL1) {
        restored |= Rflags::IF;
    }
    let mask = restored.bits();
    cpu.rflags = (cpu.rflags & !mask | saved.rflags.get() & mask) & !Rflags::VM.bits();
}

/// A copy of the GPRSGX region that ends `page`.
fn read_gprsgx(page: EpcPage<'_>) -> GprSgx {
    let mut region = GprSgx::default();
    page.read(gprsgx::OFFSET, region.as_mut_bytes());
    region
}
