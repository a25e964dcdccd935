//! Events in VMX non-root operation: which ones exit, and how they are described
//! (SDM Vol. 3C, 25.2, 27.2.2 and 27.2.4).

use cloister_x86::regs::Cr0;
use cloister_x86::vmx::{ExitReason, interruption};

use super::VmExit;
use super::controls::ExecutionControls;
use crate::cpu::Cpu;
use crate::event::{Event, Kind};

/// Vector of #PF.
pub(super) const PAGE_FAULT: u8 = 14;
/// Vector of #DB.
const DEBUG: u8 = 1;

/// Where the processor was when an event came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Outside enclaves.
    #[default]
    Outside,
    /// In an enclave, which it has left since.
    Enclave,
    /// In VMX root operation: VM entry injected the event.
    Host,
}

/// An event under delivery when an exit came, as IDT-vectoring information has it. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vectoring {
    pub(crate) information: u32,
    pub(crate) error_code: u32,
    /// Instruction length, of software events.
    pub(crate) length: u32,
    /// Where it came, or the one whose delivery raised it.
    pub(crate) origin: Origin,
}

impl Vectoring {
    /// That of `event`.
    pub(crate) fn of(cpu: &Cpu, event: &Event, length: u32, origin: Origin) -> Self {
        let (information, error_code) = describe(cpu, event);
        Self { information, error_code, length, origin }
    }
}

/// Interruption information and error code of an event.
fn describe(cpu: &Cpu, event: &Event) -> (u32, u32) {
    let kind = match event.kind {
        Kind::External => interruption::EXTERNAL,
        Kind::Nmi => interruption::NMI,
        Kind::Fault | Kind::Trap | Kind::Init => interruption::HARDWARE_EXCEPTION,
        Kind::SoftwareInterrupt => interruption::SOFTWARE_INTERRUPT,
        Kind::SoftwareException => interruption::SOFTWARE_EXCEPTION,
        Kind::PrivilegedSoftware => interruption::PRIVILEGED_SOFTWARE,
    };
    let information = u32::from(event.vector) | kind << 8 | interruption::VALID;
    // In real-address mode there are no error codes.
    match event.error_code.filter(|_| cpu.arch.cr0.contains(Cr0::PE)) {
        Some(code) => (information | interruption::ERROR_CODE, code),
        None => (information, 0),
    }
}

/// Whether the exception bitmap, with the masks of page faults, has an exception exit.
fn is_in_bitmap(controls: &ExecutionControls, event: &Event) -> bool {
    let bit = controls.exception_bitmap >> (event.vector & 31) & 1 != 0;
    if event.vector != PAGE_FAULT {
        return bit;
    }
    let code = event.error_code.unwrap_or(0);
    bit == (code & controls.page_fault_mask == controls.page_fault_match)
}

/// The exit that an exception causes directly. Interrupts and NMIs are looked at before they are taken.
pub(crate) fn intercepted(cpu: &Cpu, event: &Event) -> Option<VmExit> {
    let controls = cpu.guest_controls()?;
    let exception = matches!(
        event.kind,
        Kind::Fault | Kind::Trap | Kind::SoftwareException | Kind::PrivilegedSoftware
    );
    if !exception || !is_in_bitmap(controls, event) {
        return None;
    }
    Some(exit(cpu, event))
}

/// An exit that `event` causes directly.
pub(super) fn exit(cpu: &Cpu, event: &Event) -> VmExit {
    let (interruption, error_code) = describe(cpu, event);
    let qualification = match (event.kind, event.vector) {
        (Kind::Fault, PAGE_FAULT) | (Kind::Fault | Kind::Trap, DEBUG) => event.address,
        _ => 0,
    };
    VmExit {
        interruption,
        error_code,
        qualification,
        resume_flag: event.resume_flag.then_some(true),
        ..VmExit::new(ExitReason::ExceptionOrNmi)
    }
}

/// The event that an AEX records when an exit leaves an enclave.
pub(super) fn aex_cause(exit: &VmExit) -> Event {
    let exception = exit.reason == ExitReason::ExceptionOrNmi
        && exit.interruption >> 8 & 7 != interruption::NMI;
    if !exception {
        return Event::plain(0, Kind::External);
    }
    let code = exit.interruption & interruption::ERROR_CODE != 0;
    Event {
        error_code: code.then_some(exit.error_code),
        address: exit.qualification,
        ..Event::plain(exit.interruption as u8, Kind::Fault)
    }
}
