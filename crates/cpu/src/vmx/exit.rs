//! VM exits (SDM Vol. 3C, chapter 27).

use cloister_x86::regs::Rflags;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{
    EXIT_REASON_ENCLAVE, EXIT_REASON_ENTRY_FAILURE, ExitControls, ExitReason, interruption,
};

use super::event::{Origin, PAGE_FAULT, Vectoring, aex_cause};
use super::guest::{self, Saved, with_resume_flag};
use super::region::Region;
use super::{NonRoot, VmExit, apic_access, msr_list, window};
use crate::cpu::Cpu;
use crate::event::before_event;
use crate::exit::Exit;
use crate::mem::world::WorldKey;
use crate::state::{Activity, Shadow};

/// Why a VMX abort (SDM Vol. 3C, 27.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Abort {
    SavingMsrs = 1,
    HostPdptes = 2,
    LoadingMsrs = 4,
    HostAddressSpace = 6,
}

/// Leaves the guest. `vectoring` is the event under delivery when the exit came.
///
/// # Errors
///
/// [`Exit::TripleFault`] for a VMX abort, which is a shutdown.
pub(crate) fn leave(cpu: &mut Cpu, mut exit: VmExit, vectoring: Vectoring) -> Result<(), Exit> {
    let Some(guest) = cpu.arch.vmx.guest.take() else { return Ok(()) };
    // What an instruction that does not go on has read of devices is not the next one's.
    cpu.device_commit();
    let mut origin = vectoring.origin;
    let mut rflags = with_resume_flag(cpu.rflags(), exit.resume_flag);
    if cpu.enclave.in_enclave() {
        origin = Origin::Enclave;
        // RF went into the SSA frame.
        before_event(cpu, &mut aex_cause(&exit));
        rflags = cpu.rflags();
        conceal(&mut exit);
    }
    let shadowed = cpu.arch.shadow == Shadow::MovSs && !is_debug_exception(&exit);
    let keeps_pending = shadowed
        || matches!(
            exit.reason,
            ExitReason::Init
                | ExitReason::MonitorTrap
                | ExitReason::TprBelowThreshold
                | ExitReason::VirtualizedEoi
                | ExitReason::ApicWrite
        );
    if matches!(exit.reason, ExitReason::EptViolation | ExitReason::EptMisconfiguration) {
        // SDM Vol. 3C, 28.4.3.1.
        cpu.run.tlb.drop_page(exit.linear);
    }
    let saved = Saved {
        rflags,
        pending_debug: if keeps_pending { cpu.arch.debug_pending } else { 0 },
        preemption_timer: window::timer_left(cpu, &guest, exit.reason),
        enclave_interruption: match origin {
            Origin::Outside => false,
            Origin::Enclave => true,
            Origin::Host => guest.enclave_interruption,
        },
        pml_index: guest.pml_index,
        interrupt_status: guest.interrupts.status(),
    };
    apic_access::note_delivery(&mut exit, &vectoring);
    let vmcs = cpu.vmcs(cpu.arch.vmx.current.unwrap_or(u64::MAX));
    report(vmcs, &exit, vectoring, saved.enclave_interruption);
    guest::save(vmcs, cpu, &guest.controls, saved);
    if msr_list::store(cpu, guest.controls.exit_store).is_err() {
        return abort(cpu, Abort::SavingMsrs);
    }
    let nmi = exit.reason == ExitReason::ExceptionOrNmi
        && exit.interruption >> 8 & 7 == interruption::NMI;
    let virtual_nmis = guest.has_virtual_nmis();
    load_host(cpu, &guest, nmi || (cpu.arch.nmi_blocked && !virtual_nmis))
}

/// What an exit of an instruction in an enclave does not say: the place in a page, and the length
/// (SDM Vol. 3C, 27.2.1).
fn conceal(exit: &mut VmExit) {
    exit.linear &= !0xfff;
    exit.physical &= !0xfff;
    exit.length = 0;
    let page_fault = exit.reason == ExitReason::ExceptionOrNmi
        && exit.interruption & 0xff == u32::from(PAGE_FAULT);
    if page_fault || exit.reason == ExitReason::ApicAccess {
        exit.qualification &= !0xfff;
    }
}

fn is_debug_exception(exit: &VmExit) -> bool {
    exit.reason == ExitReason::ExceptionOrNmi && exit.interruption & 0xff == 1
}

/// Ends a VM entry that failed after the checks of controls and host state (SDM Vol. 3C, 26.7).
///
/// # Errors
///
/// As [`leave`].
pub(super) fn fail_entry(
    cpu: &mut Cpu,
    reason: ExitReason,
    qualification: u64,
) -> Result<(), Exit> {
    let Some(guest) = cpu.arch.vmx.guest.take() else { return Ok(()) };
    let vmcs = cpu.vmcs(cpu.arch.vmx.current.unwrap_or(u64::MAX));
    vmcs.write(Field::EXIT_REASON, (reason as u32 | EXIT_REASON_ENTRY_FAILURE).into());
    vmcs.write(Field::EXIT_QUALIFICATION, qualification);
    let nmi_blocked = cpu.arch.nmi_blocked;
    load_host(cpu, &guest, nmi_blocked)
}

/// Writes what the VMCS says of an exit (SDM Vol. 3C, 27.2).
fn report(vmcs: Region<'_>, exit: &VmExit, event: Vectoring, from_enclave: bool) {
    let enclave = if from_enclave { EXIT_REASON_ENCLAVE } else { 0 };
    let length = if exit.length == 0 { event.length } else { exit.length };
    vmcs.write(Field::EXIT_REASON, (exit.reason as u32 | enclave).into());
    vmcs.write(Field::EXIT_QUALIFICATION, exit.qualification);
    vmcs.write(Field::GUEST_LINEAR_ADDRESS, exit.linear);
    vmcs.write(Field::GUEST_PHYSICAL_ADDRESS, exit.physical);
    vmcs.write(Field::EXIT_INTERRUPTION, exit.interruption.into());
    vmcs.write(Field::EXIT_ERROR_CODE, exit.error_code.into());
    vmcs.write(Field::IDT_VECTORING, event.information.into());
    vmcs.write(Field::IDT_VECTORING_ERROR_CODE, event.error_code.into());
    vmcs.write(Field::EXIT_INSTRUCTION_LENGTH, length.into());
    vmcs.write(Field::EXIT_INSTRUCTION_INFO, exit.instruction.into());
    let injected = vmcs.read_32(Field::ENTRY_INTERRUPTION) & !interruption::VALID;
    vmcs.write(Field::ENTRY_INTERRUPTION, injected.into());
}

/// Loads host state and MSRs (SDM Vol. 3C, 27.5 and 27.6).
fn load_host(cpu: &mut Cpu, guest: &NonRoot, nmi_blocked: bool) -> Result<(), Exit> {
    let host_64 = guest.controls.exit.contains(ExitControls::HOST_64);
    let left = cpu.paging();
    if cpu.long_mode() && !host_64 {
        return abort(cpu, Abort::HostAddressSpace);
    }
    guest.host.load(cpu, &guest.controls);
    if cpu.pae_paging() {
        let Some(pdptes) = cpu.valid_pdptes(cpu.pdptes_at(cpu.arch.cr3)) else {
            return abort(cpu, Abort::HostPdptes);
        };
        cpu.arch.pdptes = pdptes;
    }
    cpu.arch.activity = Activity::Active;
    cpu.arch.shadow = Shadow::None;
    cpu.arch.nmi_blocked = nmi_blocked;
    cpu.arch.debug_pending = 0;
    cpu.arch.system_flags.remove(Rflags::RF);
    cpu.run.single_step = false;
    // Without a VPID the guest's translations were the hypervisor's, and are gone on both ways.
    cpu.enter_world(guest.controls.world().map(|_| WorldKey::default()), left);
    if msr_list::load(cpu, guest.controls.exit_load).is_err() {
        return abort(cpu, Abort::LoadingMsrs);
    }
    Ok(())
}

/// A VMX abort: the processor shuts down.
fn abort(cpu: &mut Cpu, cause: Abort) -> Result<(), Exit> {
    if let Some(vmcs) = cpu.arch.vmx.current {
        cpu.vmcs(vmcs).set_abort(cause as u32);
    }
    Err(Exit::TripleFault)
}
