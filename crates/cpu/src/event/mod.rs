//! Delivery of exceptions and interrupts (SDM Vol. 3A, chapter 6).

pub(crate) mod debug;
pub(crate) mod enclave_exit;
mod init;
pub(crate) mod legacy;
pub(crate) mod long;
mod real;

use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::vmx::ExitReason;
use cloister_x86::{Exception, Rights, Vector};

pub(crate) use enclave_exit::before_event;

use crate::cpu::Cpu;
use crate::exec::system::descriptor::{Descriptor, is_null, selector_code};
use crate::exit::{Exec, Exit, Stop};
use crate::run_state::attention;
use crate::state::{Activity, Shadow};
use crate::vmx::event::{Origin, Vectoring};
use crate::vmx::{self, VmExit};

/// What an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A maskable interrupt from the local APIC.
    External,
    /// A non-maskable interrupt.
    Nmi,
    /// An exception before its instruction: RIP is that instruction's.
    Fault,
    /// A debug trap: RIP is the next instruction's.
    Trap,
    /// INT n.
    SoftwareInterrupt,
    /// INT3 or INTO.
    SoftwareException,
    /// INT1.
    PrivilegedSoftware,
    /// INIT. It is not delivered, but leaves an enclave like the others.
    Init,
}

/// An event under delivery. The address that the handler returns to is
/// [`ArchState::rip`](crate::ArchState::rip).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    /// Index in the IDT.
    pub(crate) vector: u8,
    /// What it is.
    pub(crate) kind: Kind,
    /// Error code to push.
    pub(crate) error_code: Option<u32>,
    /// CR2 for #PF, DR6 bits for #DB.
    pub(crate) address: u64,
    /// Whether RF is set in the pushed image whatever it is in RFLAGS (SDM Vol. 3B, 17.3.1.1).
    pub(crate) resume_flag: bool,
}

impl Event {
    /// An exception of the instruction at [`ArchState::rip`](crate::ArchState::rip).
    #[must_use]
    pub(crate) fn fault(exception: Exception) -> Self {
        let vector = exception.vector;
        Self {
            vector: vector as u8,
            kind: Kind::Fault,
            error_code: vector.has_error_code().then_some(exception.error_code),
            address: exception.address,
            // An instruction breakpoint has no business with RF: its handler sets it. #DF is an
            // abort. #BP is a fault in enclaves only, with the RF that it has as a trap.
            resume_flag: !matches!(vector, Vector::Db | Vector::Bp | Vector::Df),
        }
    }

    /// An event without an error code.
    #[must_use]
    pub(crate) const fn plain(vector: u8, kind: Kind) -> Self {
        Self { vector, kind, error_code: None, address: 0, resume_flag: false }
    }

    /// EXT of error codes that delivery raises: the event came from outside the program
    /// (SDM Vol. 3A, 6.13).
    #[must_use]
    pub(crate) const fn ext(&self) -> u32 {
        !matches!(self.kind, Kind::SoftwareInterrupt | Kind::SoftwareException) as u32
    }

    /// Error code that names the event's IDT entry.
    #[must_use]
    pub(crate) const fn idt_code(&self) -> u32 {
        (self.vector as u32) << 3 | 2 | self.ext()
    }

    fn is_page_fault(&self) -> bool {
        self.kind == Kind::Fault && self.vector == Vector::Pf as u8
    }

    /// Contributory exceptions (SDM Vol. 3A, table 6-4).
    fn is_contributory(&self) -> bool {
        self.kind == Kind::Fault && matches!(self.vector, 0 | 10..=13 | 21)
    }
}

/// What is delivered when delivering `first` raised `second`; `None`: shutdown
/// (SDM Vol. 3A, table 6-5).
fn combine(first: &Event, second: Exception) -> Option<Event> {
    let second = Event::fault(second);
    if first.kind == Kind::Fault && first.vector == Vector::Df as u8 {
        return None;
    }
    let double = (first.is_contributory() && second.is_contributory())
        || (first.is_page_fault() && (second.is_contributory() || second.is_page_fault()));
    Some(if double { Event::fault(Exception::with_code(Vector::Df, 0)) } else { second })
}

/// Delivers an exception whose RIP is `cpu.arch.rip`, with whatever exceptions delivery itself
/// raises.
///
/// # Errors
///
/// [`Exit::TripleFault`].
pub(crate) fn deliver_exception(cpu: &mut Cpu, exception: Exception) -> Result<(), Exit> {
    let mut event = Event::fault(exception);
    let breakpoints = debug::overtake(cpu);
    if exception.vector == Vector::Db {
        event.address |= breakpoints;
    }
    deliver(cpu, event)
}

/// Delivers an event that comes between instructions. In VMX non-root operation, it or an exception
/// that its delivery raises may exit instead.
///
/// # Errors
///
/// [`Exit::TripleFault`].
pub(crate) fn deliver(cpu: &mut Cpu, event: Event) -> Result<(), Exit> {
    // An exception of INT n may be one of its delivery.
    let mut vectoring = std::mem::take(&mut cpu.run.vectoring);
    if cpu.enclave.in_enclave() {
        vectoring.origin = Origin::Enclave;
    }
    deliver_under(cpu, event, vectoring)
}

/// Delivers `event`, which came under the delivery of another one, or of none.
fn deliver_under(cpu: &mut Cpu, event: Event, vectoring: Vectoring) -> Result<(), Exit> {
    let mut next = Some((event, vectoring));
    while let Some((event, vectoring)) = next {
        if let Some(exit) = vmx::event::intercepted(cpu, &event) {
            return vmx::exit::leave(cpu, exit, vectoring);
        }
        // No block runs, so the stack may be in a page of code.
        cpu.run.alone = true;
        let outcome = attempt(cpu, event);
        cpu.run.alone = false;
        next = follow(cpu, &event, 0, vectoring.origin, outcome)?;
    }
    // The monitor trap flag counts what was delivered as an instruction (SDM Vol. 3C, 25.5.2).
    vmx::window::after_instruction(cpu);
    Ok(())
}

/// Delivers the event that a VM entry injects: it does not exit, and CR2 and debug registers stay as
/// they are. `length` is the instruction's, of a software event.
///
/// # Errors
///
/// As [`deliver`].
pub(crate) fn inject(cpu: &mut Cpu, event: Event, length: u32) -> Result<(), Exit> {
    let rip = cpu.arch.rip;
    cpu.arch.rip = cpu.truncate_rip(rip.wrapping_add(length.into()));
    cpu.run.alone = true;
    let outcome = through_idt(cpu, &event);
    cpu.run.alone = false;
    if outcome.is_err() {
        cpu.arch.rip = rip;
    }
    match follow(cpu, &event, length, Origin::Host, outcome)? {
        Some((event, vectoring)) => deliver_under(cpu, event, vectoring),
        None => Ok(()),
    }
}

/// What comes after an attempt to deliver `event`: nothing, or another event, with the one whose
/// delivery raised it.
fn follow(
    cpu: &mut Cpu,
    event: &Event,
    length: u32,
    origin: Origin,
    outcome: Exec<Option<Exception>>,
) -> Result<Option<(Event, Vectoring)>, Exit> {
    if outcome == Ok(None) {
        return Ok(None);
    }
    let vectoring = Vectoring::of(cpu, event, length, origin);
    let second = match outcome {
        Ok(fault) => fault,
        Err(Stop::FAULT) => cpu.run.fault.take(),
        Err(Stop::VM_EXIT) if let Some(exit) = cpu.run.vm_exit.take() => {
            vmx::exit::leave(cpu, exit, vectoring)?;
            return Ok(None);
        }
        // An IDT, TSS or stack in device registers: a real processor would get a machine check
        // at best.
        Err(_) => {
            cpu.run.exit = None;
            shut_down(cpu, origin)?;
            return Ok(None);
        }
    };
    let second = second.unwrap_or(Exception::new(Vector::Df));
    cpu.run.non_canonical_fault = false;
    let raised = Event::fault(second);
    let combined = combine(event, second);
    if combined == Some(raised) {
        return Ok(Some((raised, vectoring)));
    }
    // An exception that exits does so before it makes a double fault (SDM Vol. 3C, 25.2).
    if let Some(exit) = vmx::event::intercepted(cpu, &raised) {
        vmx::exit::leave(cpu, exit, vectoring)?;
        return Ok(None);
    }
    if second.vector == Vector::Pf {
        // Also where #DF takes its place (SDM Vol. 3A, 6.15, interrupt 14).
        cpu.arch.cr2 = second.address;
    }
    // Neither #DF nor a triple fault names what it comes of.
    let nothing = Vectoring { origin, ..Vectoring::default() };
    match combined {
        Some(double_fault) => Ok(Some((double_fault, nothing))),
        None => shut_down(cpu, origin).map(|()| None),
    }
}

/// A triple fault, of an event that came at `origin`: a guest's is its hypervisor's.
///
/// # Errors
///
/// [`Exit::TripleFault`].
fn shut_down(cpu: &mut Cpu, origin: Origin) -> Result<(), Exit> {
    if cpu.guest_controls().is_none() {
        return Err(Exit::TripleFault);
    }
    let nothing = Vectoring { origin, ..Vectoring::default() };
    vmx::exit::leave(cpu, VmExit::new(ExitReason::TripleFault), nothing)
}

/// Delivers an event, or raises what delivery raises and commits nothing of it. `Some`: it was
/// delivered to a task, and this is what the task meets before its first instruction.
///
/// For instructions that are events (INT n): the caller sets
/// [`ArchState::rip`](crate::ArchState::rip) to the return address.
///
/// # Errors
///
/// As the accesses and checks of SDM Vol. 3A, 6.12 and 6.14.
pub(crate) fn attempt(cpu: &mut Cpu, event: Event) -> Exec<Option<Exception>> {
    let mut event = event;
    before_event(cpu, &mut event);
    match (event.kind, event.vector) {
        (Kind::Fault, 14) => cpu.arch.cr2 = event.address,
        (Kind::Fault | Kind::Trap, 1) => debug::record(cpu, event.address),
        _ => {}
    }
    through_idt(cpu, &event)
}

/// As [`attempt`], after what comes before.
fn through_idt(cpu: &mut Cpu, event: &Event) -> Exec<Option<Exception>> {
    cpu.run.virtual_write = None;
    cpu.set_activity(Activity::Active);
    if event.kind == Kind::Nmi {
        cpu.arch.nmi_blocked = true;
    }
    let done = if !cpu.arch.cr0.contains(Cr0::PE) {
        real::deliver(cpu, event).map(|()| None)
    } else if cpu.long_mode() {
        long::deliver(cpu, event).map(|()| None)
    } else {
        legacy::deliver(cpu, event)
    };
    if done.is_ok() {
        // The handler has cleared TF: no trap follows INT n.
        cpu.run.single_step = false;
        cpu.set_shadow(Shadow::None);
        vmx::apic_access::finish_write(cpu);
    }
    done
}

/// Checks the gate that an event's IDT entry holds, whose type is right (SDM Vol. 3A, 6.12.1.2).
///
/// # Errors
///
/// #GP where software may not use it, #NP.
fn check_gate(cpu: &mut Cpu, event: &Event, gate: Rights) -> Exec {
    let software = matches!(event.kind, Kind::SoftwareInterrupt | Kind::SoftwareException);
    if software && gate.dpl() < cpu.arch.cpl {
        return Err(cpu.gp(event.idt_code()));
    }
    if gate.present() { Ok(()) } else { Err(cpu.np(event.idt_code())) }
}

/// The code segment that a gate names for a handler, and the privilege level that it runs at.
///
/// # Errors
///
/// #GP and #NP with EXT `ext`.
fn handler_code(cpu: &mut Cpu, selector: u16, ext: u32) -> Exec<(Descriptor, u8)> {
    if is_null(selector) {
        return Err(cpu.gp(ext));
    }
    let code = selector_code(selector) | ext;
    let Some(descriptor) = cpu.descriptor(selector)? else {
        return Err(cpu.gp(code));
    };
    let rights = descriptor.rights();
    // In IA-32e mode handlers are 64-bit code (SDM Vol. 3A, 6.14).
    let wrong_width = cpu.long_mode() && (!rights.long() || rights.big());
    if !rights.is_code() || rights.dpl() > cpu.arch.cpl || wrong_width {
        return Err(cpu.gp(code));
    }
    if !rights.present() {
        return Err(cpu.np(code));
    }
    Ok((descriptor, if rights.bit_ec() { cpu.arch.cpl } else { rights.dpl() }))
}

/// RFLAGS as delivery pushes it.
#[must_use]
pub(crate) fn pushed_flags(cpu: &Cpu, event: &Event) -> u64 {
    cpu.rflags() | if event.resume_flag { Rflags::RF.bits() } else { 0 }
}

/// Clears flags at the entry of a handler, and brings what follows from them and from the new
/// segments up to date.
pub(crate) fn enter_handler(cpu: &mut Cpu, cleared: Rflags) {
    cpu.arch.system_flags.remove(cleared);
    cpu.run.attention &= !attention::TRACE;
    cpu.update_mode();
}
