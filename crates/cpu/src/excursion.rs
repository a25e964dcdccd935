//! An excursion: a leaf of SGX, and what it enters, on a processor that stands in for another one.
//!
//! Where KVM's processor has no SGX, ENCLS and ENCLU are #UD there. The owner finds the processor at its
//! handler, brings its state here, and takes back what runs once that is outside enclaves again: after a leaf,
//! after EEXIT, or after an event in the enclave, whose delivery ends at its handler.

use std::time::Duration;

use cloister_x86::regs::Rflags;

use crate::cpu::Cpu;
use crate::debugger::{DebugStop, leave_enclave, stop_with};
use crate::engine::Vcpu;
use crate::exec::system::iret;
use crate::run_state::attention;

/// How far an excursion is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Excursion {
    /// There is none.
    #[default]
    None,
    /// The leaf is yet to run.
    Leaf,
    /// It has entered an enclave.
    Inside,
}

impl Vcpu {
    /// Takes back the delivery of an exception without an error code, at the first instruction of whose
    /// 64-bit handler the processor is: then it is at the instruction that raised it. Returns whether it
    /// could; otherwise nothing has changed.
    pub fn undo_exception(&mut self) -> bool {
        let cpu = &mut self.cpu;
        let before = cpu.state().clone();
        let nmi_blocked = before.nmi_blocked;
        if !before.long_mode() || iret::iretq(cpu).is_err() {
            let _ = cpu.take_fault();
            cpu.set_state(before);
            return false;
        }
        cpu.arch.nmi_blocked = nmi_blocked;
        // The image of a fault's RFLAGS has it, not the interrupted code (SDM Vol. 3B, 17.3.1.1).
        cpu.arch.system_flags.remove(Rflags::RF);
        cpu.derive();
        true
    }

    /// Sets the time stamp counter.
    pub fn set_tsc(&mut self, tsc: u64) {
        let cpu = &mut self.cpu;
        cpu.arch.msrs.tsc_offset = tsc.wrapping_sub(cpu.package.tsc());
    }

    /// Has [`Vcpu::run`] stop with [`DebugStop::Step`](crate::DebugStop::Step) after one instruction, or, where
    /// that enters an enclave, as soon as the processor is outside again, and with
    /// [`Exit::Requested`](crate::Exit::Requested) about `limit` from now.
    pub fn begin_excursion(&mut self, limit: Duration) {
        let cpu = &mut self.cpu;
        cpu.excursion = Excursion::Leaf;
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        cpu.run.deadline = cpu.package.nanos().saturating_add(limit);
        cpu.run.attention |= attention::DEBUGGER_STEP;
    }

    /// Ends it wherever it is, between two calls of [`Vcpu::run`]: inside an enclave by an AEX, as for an
    /// interrupt that is not delivered.
    pub fn end_excursion(&mut self) {
        let cpu = &mut self.cpu;
        cpu.excursion = Excursion::None;
        cpu.run.deadline = u64::MAX;
        if cpu.enclave.in_enclave() {
            leave_enclave(cpu);
        }
        self.debug_pause();
    }
}

/// An instruction retired that ran on its own, or an event was delivered in its place. Returns whether the
/// excursion goes on.
pub(crate) fn goes_on(cpu: &mut Cpu) -> bool {
    if cpu.excursion == Excursion::None || !cpu.enclave.in_enclave() {
        return false;
    }
    cpu.excursion = Excursion::Inside;
    cpu.run.attention &= !attention::DEBUGGER_STEP;
    true
}

/// The processor may have left an enclave.
pub(crate) fn note_mode(cpu: &mut Cpu) {
    if cpu.excursion == Excursion::Inside && !cpu.enclave.in_enclave() {
        cpu.excursion = Excursion::None;
        stop_with(cpu, DebugStop::Step);
    }
}
