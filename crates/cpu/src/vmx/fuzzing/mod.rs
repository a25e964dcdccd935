//! VMX operation with any contents: what a hypervisor writes into VMCSs and the memory around them, and
//! what it and its guests execute, are decided by bytes, or at random.

pub(in crate::vmx) mod contents;
pub(crate) mod hypervisor;
mod judge;
mod root;

use cloister_x86::Exception;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EXIT_REASON_ENTRY_FAILURE, ExitReason};
use iced_x86::Mnemonic;

use self::contents::{machine, prepare};
use self::hypervisor::VMCS;
use self::judge::{Before, assert_loaded};
use super::event::Vectoring;
use super::{VmExit, exit};
use crate::op::Op;
use crate::run_state::attention;
use crate::state::ArchState;
use crate::testing::{Guest, Numbers};
use crate::{Exit, Stop, Vcpu};

/// Instructions of a guest before it is made to exit.
pub(super) const INSTRUCTIONS: usize = 6;

/// Has a hypervisor enter its guest again and again as `data` decides.
///
/// # Panics
///
/// If the processor does something else than the SDM says.
pub fn vmcs(data: &[u8]) {
    let mut numbers = Numbers::of_bytes(data);
    let mut session = Session::new(&mut numbers);
    while !numbers.ended() && session.round(&mut numbers) != Outcome::Over {}
}

/// What came of a VM entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// A flag and an error number, or there was nothing to enter.
    Refused,
    /// The exit of a failed entry.
    Failed,
    /// The guest ran, and an exit ended it.
    Exited,
    /// A VMX abort, or a processor that cannot go on: memory has to be made anew.
    Over,
}

/// A processor whose memory serves for many entries, whatever guests do to it.
pub(super) struct Session {
    guest: Guest,
    start: ArchState,
}

impl Session {
    pub(super) fn new(numbers: &mut Numbers) -> Self {
        let guest = machine(1, numbers);
        let start = guest.vcpu.cpu.arch.clone();
        Self { guest, start }
    }

    /// Fills the VMCS, lets the hypervisor execute a few instructions, and enters the guest.
    pub(super) fn round(&mut self, numbers: &mut Numbers) -> Outcome {
        let vcpu = &mut self.guest.vcpu;
        vcpu.debug_pause();
        prepare(&mut vcpu.cpu, &self.start, VMCS, numbers);
        for _ in 4..numbers.below(8) {
            if !root::operate(vcpu, numbers) {
                return Outcome::Over;
            }
        }
        let vmx = &vcpu.cpu.arch.vmx;
        let current = vmx.current.map(|at| (at, vcpu.cpu.vmcs(at).is_shadow()));
        match current {
            Some((VMCS, false)) => enter(vcpu, numbers),
            Some((_, false)) => Outcome::Refused,
            _ => enter_nothing(vcpu),
        }
    }
}

/// One instruction of a guest, with what comes before it.
///
/// # Errors
///
/// The processor cannot go on.
pub(super) fn step(vcpu: &mut Vcpu, numbers: &mut Numbers) -> Result<(), Exit> {
    vcpu.debug_step();
    match vcpu.run() {
        Exit::IoIn { .. } | Exit::IoOut { .. } | Exit::MmioRead { .. } | Exit::MmioWrite { .. } => {
            vcpu.complete(numbers.draw());
        }
        Exit::Rdmsr { .. } => vcpu.finish_rdmsr(0),
        Exit::Wrmsr { .. } => vcpu.skip(),
        Exit::Debug(_) | Exit::Hlt => {}
        exit => return Err(exit),
    }
    Ok(())
}

/// Executes VMLAUNCH or VMRESUME; `None` where a guest of this memory overwrote the code or its
/// translation.
fn execute_entry(vcpu: &mut Vcpu) -> Option<Result<(), Stop>> {
    vcpu.decoded.clear();
    let executed = vcpu.execute_one();
    let entry = |op: &Op| matches!(op.mnemonic, Mnemonic::Vmlaunch | Mnemonic::Vmresume);
    vcpu.decoded.first().is_some_and(entry).then_some(executed)
}

/// VMLAUNCH or VMRESUME outside VMX operation, or without a VMCS that can be entered.
fn enter_nothing(vcpu: &mut Vcpu) -> Outcome {
    let mut expected = vcpu.cpu.arch.clone();
    let Some(executed) = execute_entry(vcpu) else { return Outcome::Over };
    if expected.vmx.vmxon.is_none() {
        assert_eq!((executed, vcpu.cpu.take_fault()), (Err(Stop::FAULT), Some(Exception::ud())));
    } else {
        assert_eq!((executed, vcpu.cpu.arch.rflags() & 0x8d5), (Ok(()), 1), "VMfailInvalid");
        expected.rip += contents::ENTER_LENGTH;
        expected.flags = vcpu.cpu.arch.flags;
    }
    assert_eq!(vcpu.cpu.arch, expected);
    Outcome::Refused
}

/// VMLAUNCH or VMRESUME of the region at [`VMCS`], and the guest until an exit.
fn enter(vcpu: &mut Vcpu, numbers: &mut Numbers) -> Outcome {
    let vmcs = vcpu.cpu.vmcs(VMCS);
    vmcs.write(Field::INSTRUCTION_ERROR, 0);
    vmcs.write(Field::EXIT_REASON, 0xffff);
    let before = Before::new(&vcpu.cpu);
    match execute_entry(vcpu) {
        Some(Ok(()) | Err(Stop::JUMP)) => {}
        Some(Err(Stop::EXIT)) => {
            assert_eq!(vcpu.cpu.take_exit(), Some(Exit::TripleFault));
            return Outcome::Over;
        }
        _ => return Outcome::Over,
    }
    let cpu = &vcpu.cpu;
    if cpu.vmcs(VMCS).read(Field::INSTRUCTION_ERROR) != 0 {
        before.assert_refused(cpu);
        return Outcome::Refused;
    }
    let reason = cpu.vmcs(VMCS).read_32(Field::EXIT_REASON);
    if reason & EXIT_REASON_ENTRY_FAILURE != 0 {
        before.assert_failed(cpu);
        return Outcome::Failed;
    }
    assert!(cpu.vmcs(VMCS).is_launched());
    if cpu.arch.vmx.guest.is_none() {
        // What was injected exited.
        before.assert_host(cpu);
        return Outcome::Exited;
    }
    assert_loaded(cpu);
    run_guest(vcpu, &before, numbers)
}

/// The guest until an exit, which comes in the end as of an interrupt.
fn run_guest(vcpu: &mut Vcpu, before: &Before, numbers: &mut Numbers) -> Outcome {
    for _ in 0..INSTRUCTIONS {
        let guest = vcpu.cpu.arch.clone();
        if step(vcpu, numbers).is_err() {
            return Outcome::Over;
        }
        if vcpu.cpu.arch.vmx.guest.is_none() {
            before.assert_saved(&vcpu.cpu, &guest);
            // The host may have begun to run.
            if vcpu.cpu.arch.rip == before.field(Field::HOST_RIP) {
                before.assert_host(&vcpu.cpu);
            }
            return Outcome::Exited;
        }
    }
    vcpu.debug_pause();
    if vcpu.cpu.run.attention & attention::DEVICE != 0 {
        // An instruction is half done.
        return Outcome::Over;
    }
    let guest = vcpu.cpu.arch.clone();
    let interrupt = VmExit::new(ExitReason::ExternalInterrupt);
    if exit::leave(&mut vcpu.cpu, interrupt, Vectoring::default()).is_err() {
        return Outcome::Over;
    }
    before.assert_saved(&vcpu.cpu, &guest);
    before.assert_host(&vcpu.cpu);
    Outcome::Exited
}
