//! What VMX non-root operation looks at between two instructions: the monitor trap flag, windows for
//! interrupts and NMIs, the VMX-preemption timer and the TPR threshold (SDM Vol. 3C, 25.2, 25.5.1, 25.5.2
//! and 26.6), and interrupts and NMIs that exit.

use std::time::Duration;

use cloister_x86::regs::Rflags;
use cloister_x86::vmx::{ExitControls, ExitReason, PinControls, ProcControls, interruption};

use super::capability::PREEMPTION_RATE;
use super::event::{self, Vectoring};
use super::{ExecutionControls, NonRoot, VmExit, exit, virtual_apic};
use crate::cpu::Cpu;
use crate::event::{Event, Kind};
use crate::exit::Exit;
use crate::run_state::attention;
use crate::state::{Activity, Shadow};

/// Controls that are looked at before each instruction.
const WINDOWS: ProcControls = ProcControls::INTERRUPT_WINDOW
    .union(ProcControls::NMI_WINDOW)
    .union(ProcControls::MONITOR_TRAP);

impl NonRoot {
    /// NMI blocking is the guest's own.
    pub(super) const fn has_virtual_nmis(&self) -> bool {
        self.controls.pin.contains(PinControls::VIRTUAL_NMIS)
    }
}

/// Has the engine come here before each block, or not.
pub(crate) fn update_attention(cpu: &mut Cpu) {
    let on =
        cpu.arch.vmx.guest.as_ref().is_some_and(|guest| {
            guest.pending.is_some() || guest.controls.proc.intersects(WINDOWS)
        });
    cpu.run.set_attention(attention::GUEST, on);
    let traps = traps(cpu);
    cpu.run.set_attention(attention::MONITOR_TRAP, traps);
}

/// Whether the monitor trap flag is set. An enclave whose entry opted out of debugging masks it
/// (SDM Vol. 3D, 40.2.2).
fn traps(cpu: &Cpu) -> bool {
    let set = |c: &ExecutionControls| c.proc.contains(ProcControls::MONITOR_TRAP);
    cpu.guest_controls().is_some_and(set) && !cpu.enclave.debug_opt_out()
}

/// Has an exit come before the next instruction.
pub(super) fn pend(cpu: &mut Cpu, exit: VmExit) {
    if let Some(guest) = &mut cpu.arch.vmx.guest {
        // What follows from an instruction comes before the monitor trap flag.
        guest.pending.get_or_insert(exit);
        cpu.run.attention |= attention::GUEST;
    }
}

/// After an instruction that ran on its own, or an event that was delivered or injected.
pub(crate) fn after_instruction(cpu: &mut Cpu) {
    if traps(cpu) {
        pend(cpu, VmExit::new(ExitReason::MonitorTrap));
    }
}

/// Starts the VMX-preemption timer.
pub(super) fn start_timer(cpu: &mut Cpu, value: u32) {
    let Some(guest) = &mut cpu.arch.vmx.guest else { return };
    if !guest.controls.pin.contains(PinControls::PREEMPTION_TIMER) {
        return;
    }
    guest.deadline = Some(cpu.package.tsc() + (u64::from(value) << PREEMPTION_RATE));
    if value == 0 {
        cpu.run.attention |= attention::GUEST;
    }
}

/// What is left of the timer at an exit, if that is saved.
pub(super) fn timer_left(cpu: &Cpu, guest: &NonRoot, reason: ExitReason) -> Option<u32> {
    let left = guest.deadline?.saturating_sub(cpu.package.tsc()) >> PREEMPTION_RATE;
    let expired = reason == ExitReason::PreemptionTimer;
    guest.controls.exit.contains(ExitControls::SAVE_PREEMPTION_TIMER).then_some(if expired {
        0
    } else {
        left as u32
    })
}

/// Whether the VMX-preemption timer has expired.
pub(crate) fn timer_expired(cpu: &Cpu) -> bool {
    cpu.arch
        .vmx
        .guest
        .as_ref()
        .and_then(|guest| guest.deadline)
        .is_some_and(|deadline| cpu.package.tsc() >= deadline)
}

/// Time until the VMX-preemption timer expires; it wakes from HLT, and not
/// from wait-for-SIPI.
pub(crate) fn time_to_timer(cpu: &Cpu) -> Option<Duration> {
    if cpu.arch.activity == Activity::WaitForSipi {
        return None;
    }
    let deadline = cpu.arch.vmx.guest.as_ref()?.deadline?;
    let counts = u128::from(deadline.saturating_sub(cpu.package.tsc()));
    let nanos = counts * 1_000_000_000 / u128::from(cpu.package.tsc_hz.max(1)) + 1;
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// Exits that come before debug traps.
///
/// # Errors
///
/// As [`exit::leave`].
pub(crate) fn attend_first(cpu: &mut Cpu) -> Result<(), Exit> {
    let Some(guest) = &mut cpu.arch.vmx.guest else { return Ok(()) };
    match guest.pending.take() {
        Some(exit) => exit::leave(cpu, exit, Vectoring::default()),
        None => Ok(()),
    }
}

/// Exits that come after debug traps: of the timer, windows, NMIs and interrupts.
///
/// # Errors
///
/// As [`exit::leave`].
pub(crate) fn attend_last(cpu: &mut Cpu) -> Result<(), Exit> {
    let Some(guest) = &cpu.arch.vmx.guest else { return Ok(()) };
    let (pin, proc) = (guest.controls.pin, guest.controls.proc);
    if cpu.arch.activity == Activity::WaitForSipi {
        return Ok(());
    }
    if timer_expired(cpu) {
        return exit::leave(cpu, VmExit::new(ExitReason::PreemptionTimer), Vectoring::default());
    }
    if cpu.arch.shadow != Shadow::None {
        return Ok(());
    }
    if proc.contains(ProcControls::NMI_WINDOW) && !cpu.arch.nmi_blocked {
        return exit::leave(cpu, VmExit::new(ExitReason::NmiWindow), Vectoring::default());
    }
    let nmi_open = !cpu.arch.nmi_blocked || pin.contains(PinControls::VIRTUAL_NMIS);
    if pin.contains(PinControls::NMI) && cpu.apic.nmis != 0 && nmi_open {
        cpu.apic.nmis -= 1;
        let nmi = event::exit(cpu, &Event::plain(2, Kind::Nmi));
        return exit::leave(cpu, nmi, Vectoring::default());
    }
    if proc.contains(ProcControls::INTERRUPT_WINDOW) && cpu.arch.system_flags.contains(Rflags::IF) {
        return exit::leave(cpu, VmExit::new(ExitReason::InterruptWindow), Vectoring::default());
    }
    loop {
        virtual_apic::deliver(cpu)?;
        if !external_interrupt(cpu)? {
            return Ok(());
        }
    }
}

/// An external interrupt that exits, whatever IF is; `true` if it told of posted interrupts instead.
fn external_interrupt(cpu: &mut Cpu) -> Result<bool, Exit> {
    let (Some(vector), Some(controls)) = (cpu.apic.deliverable(), cpu.guest_controls()) else {
        return Ok(false);
    };
    if !controls.pin.contains(PinControls::EXTERNAL_INTERRUPT) {
        return Ok(false);
    }
    let acknowledges = controls.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT);
    if virtual_apic::take_posted(cpu, vector) {
        return Ok(true);
    }
    let mut interrupt = VmExit::new(ExitReason::ExternalInterrupt);
    if acknowledges {
        interrupt.interruption =
            u32::from(vector) | interruption::EXTERNAL << 8 | interruption::VALID;
        cpu.apic_acknowledge(vector);
    }
    exit::leave(cpu, interrupt, Vectoring::default())?;
    Ok(false)
}
