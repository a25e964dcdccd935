//! VM entry (SDM Vol. 3C, chapter 26).

use cloister_x86::vmx::{
    ExitReason, Interruptibility, VmInstructionError, entry_failure, interruption,
};

use super::controls::{EntryEvent, ExecutionControls};
use super::guest::GuestState;
use super::host::HostState;
use super::region::NO_LINK;
use super::virtual_apic::{self, VirtualInterrupts};
use super::{NonRoot, VmExit, exit, msr_list, window};
use crate::cpu::Cpu;
use crate::event::{self, Event, Kind};
use crate::exit::Exit;
use crate::state::Shadow;

/// Why a VM entry ends with a flag and not with an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// There is no current VMCS, or it is a shadow VMCS: VMfailInvalid.
    NoVmcs,
    /// VMfailValid.
    Error(VmInstructionError),
}

impl From<VmInstructionError> for Refusal {
    fn from(error: VmInstructionError) -> Self {
        Self::Error(error)
    }
}

/// What ends a VM entry in an exit.
struct Failure {
    reason: ExitReason,
    qualification: u64,
}

/// VMLAUNCH, or VMRESUME, in VMX root operation at CPL 0. Afterwards the processor is in the guest, or
/// at the host's RIP after an exit.
///
/// # Errors
///
/// A refusal, which changes nothing.
pub(crate) fn enter(cpu: &mut Cpu, launch: bool) -> Result<Result<(), Exit>, Refusal> {
    let ordinary = |&address: &u64| !cpu.vmcs(address).is_shadow();
    let address = cpu.arch.vmx.current.filter(ordinary).ok_or(Refusal::NoVmcs)?;
    if cpu.run.shadowed == Shadow::MovSs {
        return Err(VmInstructionError::EntryUnderMovSs.into());
    }
    let vmcs = cpu.vmcs(address);
    match (launch, vmcs.is_launched()) {
        (true, true) => return Err(VmInstructionError::VmlaunchNotClear.into()),
        (false, false) => return Err(VmInstructionError::VmresumeNotLaunched.into()),
        _ => {}
    }
    let guest = GuestState::read(vmcs);
    let non_root = NonRoot::new(ExecutionControls::read(vmcs), HostState::read(vmcs));
    let mut non_root = Box::new(non_root);
    let controls = &non_root.controls;
    if !controls.are_valid(cpu, guest.cr0 & 1 != 0) {
        return Err(VmInstructionError::InvalidControls.into());
    }
    if !non_root.host.is_valid(cpu, controls) {
        return Err(VmInstructionError::InvalidHostState.into());
    }
    // Whatever comes is an exit. No trap follows the instruction.
    cpu.run.single_step = false;
    let event = controls.event;
    let blocking = guest.interruptibility;
    non_root.enclave_interruption = blocking & Interruptibility::ENCLAVE.bits() != 0;
    non_root.pml_index = guest.pml_index;
    non_root.interrupts = VirtualInterrupts::new(guest.interrupt_status);
    non_root.link_pointer = (guest.link_pointer != NO_LINK).then_some(guest.link_pointer);
    Ok(match load(cpu, &guest, non_root) {
        Ok(()) => {
            if launch {
                cpu.vmcs(address).set_launched(true);
            }
            begin(cpu, event, guest.preemption_timer)
        }
        Err(failure) => exit::fail_entry(cpu, failure.reason, failure.qualification),
    })
}

/// Checks and loads guest state. The processor is in VMX non-root operation afterwards, whatever
/// comes of it: where the entry fails, host state is loaded as by an exit.
fn load(cpu: &mut Cpu, guest: &GuestState, non_root: Box<NonRoot>) -> Result<(), Failure> {
    let left = cpu.paging();
    let controls = &non_root.controls;
    let world = controls.world();
    let checked = guest.check(cpu, controls).and_then(|()| pdptes(cpu, guest, controls));
    if let Ok(pdptes) = &checked {
        guest.load(cpu, controls);
        if let Some(pdptes) = pdptes {
            cpu.arch.pdptes = *pdptes;
        }
    }
    let list = controls.entry_load;
    cpu.arch.vmx.guest = Some(non_root);
    if let Err(qualification) = checked {
        return Err(Failure { reason: ExitReason::InvalidGuestState, qualification });
    }
    cpu.enter_world(world, left);
    msr_list::load(cpu, list)
        .map_err(|entry| Failure { reason: ExitReason::MsrLoading, qualification: entry.into() })
}

/// The PDPTEs of a guest with PAE paging.
///
/// # Errors
///
/// The exit qualification.
fn pdptes(
    cpu: &Cpu,
    guest: &GuestState,
    controls: &ExecutionControls,
) -> Result<Option<[u64; 4]>, u64> {
    if !guest.has_pae_paging(controls) {
        return Ok(None);
    }
    let pdptes = if controls.has_ept() { guest.pdptes } else { cpu.pdptes_at(guest.cr3) };
    cpu.valid_pdptes(pdptes).map(Some).ok_or(entry_failure::PDPTE)
}

/// What comes between guest state and the guest's first instruction (SDM Vol. 3C, 26.6 and 26.7).
fn begin(cpu: &mut Cpu, event: EntryEvent, timer: u32) -> Result<(), Exit> {
    cpu.unblock_init();
    window::start_timer(cpu, timer);
    virtual_apic::task_priority_changed(cpu);
    if event.information & interruption::VALID == 0 {
        window::update_attention(cpu);
        return Ok(());
    }
    if event.information >> 8 & 7 == interruption::OTHER {
        window::pend(cpu, VmExit::new(ExitReason::MonitorTrap));
        return Ok(());
    }
    // Neither a shadow nor a debug trap survives what is injected (26.6.1 and 26.6.3).
    let kind = kind(event.information);
    if kind != Kind::External && kind != Kind::Nmi {
        event::debug::overtake(cpu);
    }
    cpu.set_shadow(Shadow::None);
    let injected = Event {
        error_code: (event.information & interruption::ERROR_CODE != 0).then_some(event.error_code),
        ..Event::plain(event.information as u8, kind)
    };
    let software = matches!(
        kind,
        Kind::SoftwareInterrupt | Kind::PrivilegedSoftware | Kind::SoftwareException
    );
    let length = if software { event.length } else { 0 };
    event::inject(cpu, injected, length)?;
    window::after_instruction(cpu);
    window::update_attention(cpu);
    Ok(())
}

/// What an event is, by interruption information.
fn kind(information: u32) -> Kind {
    match information >> 8 & 7 {
        interruption::EXTERNAL => Kind::External,
        interruption::NMI => Kind::Nmi,
        interruption::SOFTWARE_INTERRUPT => Kind::SoftwareInterrupt,
        interruption::PRIVILEGED_SOFTWARE => Kind::PrivilegedSoftware,
        interruption::SOFTWARE_EXCEPTION => Kind::SoftwareException,
        _ => Kind::Fault,
    }
}
