//! ENCLU\[EEXIT\] (SDM Vol. 3D, 38.4, EEXIT): leaves an enclave.

use cloister_x86::Gpr;
use cloister_x86::regs::Rflags;

use crate::aex::{leave, release_tcs};
use crate::enclu::entry::check_target;
use crate::enclu::{EncluOutcome, Stepping};
use crate::layout::tcs;
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::Stop;
use crate::processor::ProcessorState;
use crate::state::EnclaveState;

/// RBX: the address to go on at. RCX receives the AEP.
pub(super) fn leaf(
    platform: &Platform,
    state: &mut EnclaveState,
    cpu: &mut ProcessorState,
) -> Result<EncluOutcome, Stop> {
    let mask = if cpu.mode64 { u64::MAX } else { 0xffff_ffff };
    let target = check_target(cpu, cpu.gpr[Gpr::Rbx] & mask)?;
    let enclave = state.active.take().ok_or(GP)?;
    let tcs_page = platform.page(enclave.tcs);
    cpu.rip = target;
    cpu.gpr[Gpr::Rcx] = tcs_page.load(tcs::AEP);
    release_tcs(tcs_page);
    leave(platform, &enclave, cpu);
    let tf = cpu.rflags & Rflags::TF.bits() != 0;
    Ok(EncluOutcome {
        flush: true,
        xrstor: None,
        stepping: if tf { Stepping::Pending } else { Stepping::Suppressed },
    })
}
