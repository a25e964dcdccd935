//! From the inbox into the local APIC, and from there to the processor (SDM Vol. 3A, 10.8).

use cloister_x86::regs::Rflags;
use cloister_x86::segment::seg;
use cloister_x86::vmx::ExitReason;

use super::inbox::MOST_NMIS;
use crate::cpu::Cpu;
use crate::event::{self, Event, Kind};
use crate::exit::Exit;
use crate::kicker;
use crate::run_state::attention;
use crate::state::Activity;
use crate::vmx::event::Vectoring;
use crate::vmx::{self, VmExit, virtual_apic};

/// Takes what other threads have posted: interrupts into IRR, NMI, INIT and start-up IPIs.
///
/// # Errors
///
/// [`Exit::Init`].
pub(crate) fn take_inbox(cpu: &mut Cpu) -> Result<(), Exit> {
    let kicker = cpu.kicker.clone();
    let mail = kicker.inbox.take();
    let guest = cpu.arch.vmx.guest.is_some();
    let init = mail.init && cpu.takes_init();
    if mail.init && !init {
        kicker.inbox.post_init();
    }
    if init && guest {
        vmx::exit::leave(cpu, VmExit::new(ExitReason::Init), Vectoring::default())?;
    } else if init {
        cpu.init();
    }
    if let Some(vector) = mail.sipi
        && cpu.arch.activity == Activity::WaitForSipi
    {
        if guest {
            let exit = VmExit::new(ExitReason::Sipi).qualified(vector.into());
            vmx::exit::leave(cpu, exit, Vectoring::default())?;
        } else {
            start_up(cpu, vector);
        }
    }
    if mail.nmis != 0 && cpu.arch.activity != Activity::WaitForSipi {
        let most = if cpu.arch.nmi_blocked { MOST_NMIS - 1 } else { MOST_NMIS };
        cpu.apic.nmis = most.min(cpu.apic.nmis + mail.nmis);
        cpu.run.attention |= attention::INTERRUPTS;
    }
    let mut requests = mail.requests;
    while let Some(vector) = requests.highest() {
        requests.set(vector, false);
        cpu.apic_accept(vector, mail.level.contains(vector));
    }
    // Others wait for a start-up IPI.
    if init && !guest && cpu.apic.is_bootstrap() { Err(Exit::Init) } else { Ok(()) }
}

/// A start-up IPI: the processor begins at `vector` * 4096 in real-address mode
/// (SDM Vol. 3A, 8.4.3).
fn start_up(cpu: &mut Cpu, vector: u8) {
    cpu.set_activity(Activity::Active);
    cpu.set_real_segment(seg::CS, u16::from(vector) << 8);
    cpu.arch.rip = 0;
    cpu.update_mode();
}

impl Cpu {
    /// Whether INIT is not blocked: VMX root operation holds it back until VM entry or VMXOFF
    /// (SDM Vol. 3C, 23.8).
    fn takes_init(&self) -> bool {
        !self.in_vmx() || self.arch.vmx.guest.is_some()
    }

    /// Has an INIT that VMX root operation blocked looked at again.
    pub(crate) fn unblock_init(&self) {
        if self.kicker.inbox.peek().init {
            self.kicker.post(kicker::event::APIC);
        }
    }

    /// Acknowledges an interrupt: it is in service.
    pub(crate) fn apic_acknowledge(&mut self, vector: u8) {
        self.apic.irr.set(vector, false);
        self.apic.isr.set(vector, true);
    }

    /// Whether the processor would take an event before its next instruction: INIT, an NMI unless
    /// one is being handled, or with RFLAGS.IF an interrupt above its priority or a virtual one. What
    /// other threads have only posted counts.
    pub(crate) fn event_pending(&self) -> bool {
        let posted = self.kicker.inbox.peek();
        let nmi = posted.nmi || self.apic.nmis != 0;
        let interrupts = [posted.requests.highest(), self.apic.irr.highest()];
        (posted.init && self.takes_init())
            || (nmi && !self.arch.nmi_blocked)
            || virtual_apic::is_deliverable(self)
            || (self.arch.system_flags.contains(Rflags::IF)
                && interrupts.into_iter().flatten().any(|vector| self.apic.lets_through(vector)))
    }
}

/// Delivers the highest-priority pending NMI or interrupt if the processor can take it now, and
/// wakes it from HLT.
///
/// # Errors
///
/// An exit that delivery caused, or [`Exit::Eoi`] for an end of interrupt that the owner has to
/// hear of first.
pub(crate) fn deliver_interrupt(cpu: &mut Cpu) -> Result<(), Exit> {
    if let Some(vector) = cpu.apic.eois.highest() {
        // INTERRUPTS stays set: the rest is looked at when the processor runs again.
        cpu.apic.eois.set(vector, false);
        return Err(Exit::Eoi { vector });
    }
    cpu.run.attention &= !attention::INTERRUPTS;
    if cpu.arch.activity == Activity::WaitForSipi {
        return Ok(());
    }
    if cpu.apic.nmis != 0 && !cpu.arch.nmi_blocked {
        cpu.apic.nmis -= 1;
        // A maskable interrupt may follow if the handler leaves IF set.
        cpu.run.attention |= attention::INTERRUPTS;
        return event::deliver(cpu, Event::plain(2, Kind::Nmi));
    }
    if cpu.arch.system_flags.contains(Rflags::IF)
        && let Some(vector) = cpu.apic.deliverable()
    {
        cpu.apic_acknowledge(vector);
        cpu.run.attention |= attention::INTERRUPTS;
        return event::deliver(cpu, Event::plain(vector, Kind::External));
    }
    Ok(())
}
