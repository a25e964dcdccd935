//! ENCLU\[EENTER\] (SDM Vol. 3D, 38.4, EENTER): enters an enclave.

use core::mem::offset_of;

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;

use crate::enclu::entry::{Entry, check_target};
use crate::enclu::{EncluOutcome, Stepping};
use crate::layout::{GprSgx, gprsgx};
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::{LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;

/// RBX: the TCS; RCX: the AEP. RAX receives CSSA, RCX the address after ENCLU.
pub(super) fn leaf(
    platform: &Platform,
    state: &mut EnclaveState,
    port: &mut impl LeafPort,
    cpu: &mut ProcessorState,
) -> Result<EncluOutcome, Stop> {
    let entry = Entry::begin(platform, port, cpu)?;
    let cssa = entry.tcs.cssa.get();
    // The SSA has room for at least one more frame.
    if cssa >= entry.tcs.nssa.get() {
        return Err(GP);
    }
    let frame = entry.latch_frame(port, cssa)?;
    let target = check_target(cpu, entry.entry_point())?;
    let segments = entry.thread_segments(cpu, None)?;
    entry.check_inactive()?;

    let gpr_page = entry.page(frame.gpr_page);
    let tf = cpu.rflags & Rflags::TF.bits() != 0;
    let dbgoptin = entry.commit(state, cpu, frame, segments, tf);
    gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, ursp), cpu.gpr[Gpr::Rsp]);
    gpr_page.store(gprsgx::OFFSET + offset_of!(GprSgx, urbp), cpu.gpr[Gpr::Rbp]);
    cpu.gpr[Gpr::Rax] = u64::from(cssa);
    cpu.gpr[Gpr::Rcx] = cpu.rip;
    cpu.rip = target;
    Ok(EncluOutcome {
        flush: true,
        xrstor: None,
        // An opt-in entry steps like any other instruction.
        stepping: if dbgoptin { Stepping::Usual } else { Stepping::Suppressed },
    })
}
