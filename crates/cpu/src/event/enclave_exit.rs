//! Asynchronous enclave exit (SDM Vol. 3D, chapter 37).

use cloister_sgx::{ExitingEvent, XsaveArea, aex};
use cloister_x86::regs::Xfeatures;
use cloister_x86::{Exception, Vector};

use super::debug;
use crate::cpu::Cpu;
use crate::event::{Event, Kind, pushed_flags};
use crate::vmx::window;

/// What comes before the delivery of an event: inside an enclave, the exit from it. The event is
/// then delivered from the synthetic state, at the AEP.
pub(crate) fn before_event(cpu: &mut Cpu, event: &mut Event) {
    let Some(xfrm) = cpu.enclave.xfrm() else {
        return;
    };
    let Some(platform) = cpu.package.platform.clone() else {
        return;
    };
    let mut state = cpu.leaf_state();
    state.rflags = pushed_flags(cpu, event);
    let mut xsave = XsaveArea::default();
    let image = cpu.xsave_image(Xfeatures::from_bits_truncate(xfrm));
    xsave.image_mut(xfrm).copy_from_slice(&image);
    let mut enclave = std::mem::take(&mut cpu.enclave);
    let frame = enclave.frame_pages();
    let left = aex(&platform, &mut enclave, &mut state, exiting_event(event), &mut xsave);
    cpu.enclave = enclave;
    let Some(synthetic) = left else {
        return;
    };
    for page in frame.into_iter().flatten() {
        cpu.epc_written(page);
    }
    cpu.run.tlb.leave_enclave();
    window::update_attention(cpu);
    cpu.set_leaf_state(&state);
    cpu.initialize_xstate(Xfeatures::from_bits_truncate(synthetic.init));
    cpu.arch.fpu.control = synthetic.fcw;
    cpu.arch.fpu.status = synthetic.fsw;
    cpu.arch.vector.mxcsr = synthetic.mxcsr;
    if let ExitingEvent::Exception(exception) = synthetic.event {
        event.address = exception.address;
    }
    if (event.kind, event.vector) == (Kind::Trap, Vector::Db as u8) {
        // SDM Vol. 3D, 40.3.2: with the trap come the instruction breakpoints at the AEP.
        event.address |= debug::instruction_matches(cpu);
    }
    // RF was saved in the SSA frame; the frame that delivery pushes is that of the AEP.
    event.resume_flag = false;
}

/// What EXITINFO can say of an event.
fn exiting_event(event: &Event) -> ExitingEvent {
    match (event.kind, Vector::try_from(event.vector)) {
        (
            Kind::Fault | Kind::Trap | Kind::SoftwareException | Kind::PrivilegedSoftware,
            Ok(vector),
        ) => ExitingEvent::Exception(Exception {
            vector,
            error_code: event.error_code.unwrap_or(0),
            address: event.address,
        }),
        _ => ExitingEvent::Interrupt,
    }
}
