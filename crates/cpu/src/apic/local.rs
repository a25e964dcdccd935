//! The state of a local APIC and its priorities (SDM Vol. 3A, 10.8).

use cloister_x86::Gpa;

use super::bits::VectorSet;
use super::inbox::Addressing;
use super::timer::Timer;
use crate::cpu::Cpu;
use crate::run_state::attention;

/// Registers of the local vector table, in the order of [`LocalApic::lvt`].
pub(super) mod lvt {
    pub(crate) const TIMER: usize = 0;
    pub(crate) const THERMAL: usize = 1;
    pub(crate) const PERFORMANCE: usize = 2;
    pub(crate) const LINT0: usize = 3;
    pub(crate) const LINT1: usize = 4;
    pub(crate) const ERROR: usize = 5;
    pub(crate) const COUNT: usize = 6;
    /// Interrupt mask.
    pub(crate) const MASKED: u32 = 1 << 16;
}

/// Error status register bits (SDM Vol. 3A, figure 10-9).
pub(super) mod esr {
    pub(crate) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(crate) const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub(crate) const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// IA32_APIC_BASE: bootstrap processor.
const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
const BASE_EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: global enable.
const BASE_ENABLE: u64 = 1 << 11;
/// Where the register page is after reset.
const BASE_ADDRESS: u64 = 0xfee0_0000;
/// SVR: software enable.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR: no EOI broadcasts.
pub(super) const SVR_SUPPRESS_EOI: u32 = 1 << 12;

/// A local APIC.
#[derive(Clone, Debug)]
pub(crate) struct LocalApic {
    pub(super) id: u32,
    base: u64,
    pub(super) irr: VectorSet,
    pub(super) isr: VectorSet,
    pub(super) tmr: VectorSet,
    pub(super) tpr: u8,
    pub(super) ldr: u32,
    pub(super) dfr: u32,
    pub(super) svr: u32,
    /// Errors as the register shows them, and those since it was last written.
    pub(super) esr: u32,
    pub(super) esr_next: u32,
    pub(super) icr: u64,
    pub(super) lvt: [u32; lvt::COUNT],
    pub(super) timer: Timer,
    /// NMIs that wait.
    pub(crate) nmis: u8,
    /// Level-triggered vectors whose EOI the owner has not been told.
    pub(super) eois: VectorSet,
}

impl LocalApic {
    /// The local APIC of the processor with APIC ID `id`, after power-up (SDM Vol. 3A, 10.4.7.1).
    #[must_use]
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            base: BASE_ADDRESS | BASE_ENABLE | if id == 0 { BASE_BSP } else { 0 },
            irr: VectorSet::default(),
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            esr: 0,
            esr_next: 0,
            icr: 0,
            lvt: [lvt::MASKED; lvt::COUNT],
            timer: Timer::default(),
            nmis: 0,
            eois: VectorSet::default(),
        }
    }

    /// State after INIT: as after power-up, but where and what the APIC is stays
    /// (SDM Vol. 3A, 10.4.7.3).
    pub(crate) fn init(&mut self) {
        let mut new = Self { base: self.base, ..Self::new(self.id) };
        if new.is_x2apic() {
            new.ldr = x2apic_logical_id(new.id);
        }
        *self = new;
    }

    /// Whether the xAPIC register page is at `gpa`.
    #[inline]
    #[must_use]
    pub(crate) fn claims(&self, gpa: Gpa) -> bool {
        gpa.0 & !0xfff == self.base & !0xfff && self.base & (BASE_ENABLE | BASE_EXTD) == BASE_ENABLE
    }

    /// IA32_APIC_BASE.
    #[must_use]
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// IA32_APIC_BASE.EN.
    #[must_use]
    pub(crate) fn enabled(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    /// Whether it is that of the bootstrap processor.
    pub(crate) fn is_bootstrap(&self) -> bool {
        self.base & BASE_BSP != 0
    }

    /// In x2APIC mode.
    #[must_use]
    pub(crate) fn is_x2apic(&self) -> bool {
        self.base & BASE_EXTD != 0
    }

    pub(super) fn software_enabled(&self) -> bool {
        self.enabled() && self.svr & SVR_ENABLE != 0
    }

    /// Task-priority register.
    #[must_use]
    pub(crate) fn task_priority(&self) -> u8 {
        self.tpr
    }

    /// Processor-priority register (SDM Vol. 3A, 10.8.3.1).
    pub(super) fn processor_priority(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 { self.tpr } else { in_service & 0xf0 }
    }

    /// The interrupt to deliver next: the highest requested one, if its class is above the
    /// processor's priority class.
    pub(crate) fn deliverable(&self) -> Option<u8> {
        self.irr.highest().filter(|&vector| self.lets_through(vector))
    }

    /// Whether a request for `vector` is above the processor's priority class.
    pub(super) fn lets_through(&self, vector: u8) -> bool {
        vector >> 4 > self.processor_priority() >> 4 && self.software_enabled()
    }

    pub(super) fn addressing(&self) -> Addressing {
        Addressing {
            enabled: self.enabled(),
            x2apic: self.is_x2apic(),
            cluster: self.dfr >> 28 == 0,
            ldr: self.ldr,
        }
    }
}

/// The logical ID of an x2APIC (SDM Vol. 3A, 10.12.10.2).
fn x2apic_logical_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}

impl Cpu {
    /// Sets the task-priority register.
    pub(crate) fn set_task_priority(&mut self, value: u8) {
        self.apic.tpr = value;
        self.run.attention |= attention::INTERRUPTS;
    }

    /// Accepts an interrupt into IRR.
    pub(super) fn apic_accept(&mut self, vector: u8, level: bool) {
        if !self.apic.software_enabled() {
            return;
        }
        if vector < 16 {
            self.apic_error(esr::RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.apic.irr.set(vector, true);
        self.apic.tmr.set(vector, level);
        self.run.attention |= attention::INTERRUPTS;
    }

    /// Records an error and raises the error interrupt.
    pub(super) fn apic_error(&mut self, error: u32) {
        self.apic.esr_next |= error;
        let entry = self.apic.lvt[lvt::ERROR];
        // An illegal vector in the error entry itself must not recurse.
        if entry & lvt::MASKED == 0 && entry & 0xff >= 16 {
            self.apic_accept(entry as u8, false);
        }
    }

    /// End of interrupt (SDM Vol. 3A, 10.8.5).
    pub(crate) fn apic_eoi(&mut self) {
        let Some(vector) = self.apic.isr.highest() else { return };
        self.apic.isr.set(vector, false);
        if self.apic.tmr.contains(vector) && self.apic.svr & SVR_SUPPRESS_EOI == 0 {
            self.apic.eois.set(vector, true);
        }
        self.run.attention |= attention::INTERRUPTS;
    }

    /// Tells other processors how this APIC is addressed now.
    pub(crate) fn publish_apic(&self) {
        self.kicker.inbox.publish(self.apic.addressing());
    }

    /// WRMSR of IA32_APIC_BASE; `false`: #GP (SDM Vol. 3A, 10.4.3 and 10.12.1).
    pub(crate) fn write_apic_base(&mut self, value: u64) -> bool {
        let address = ((1 << self.ctl.features.physical_bits) - 1) & !0xfff;
        let old = self.apic.base;
        if value & !(address | BASE_BSP | BASE_EXTD | BASE_ENABLE) != 0 {
            return false;
        }
        let modes = |base: u64| (base & BASE_ENABLE != 0, base & BASE_EXTD != 0);
        match (modes(old), modes(value)) {
            // Extended but not enabled is not a mode; the one way out of x2APIC mode is to disable,
            // the one way in is from xAPIC mode (SDM Vol. 3A, figure 10-27).
            (_, (false, true)) | ((true, true), (true, false)) | ((false, _), (true, true)) => {
                return false;
            }
            (_, (false, false)) => {
                self.apic.init();
            }
            ((true, false), (true, true)) => {
                self.apic.ldr = x2apic_logical_id(self.apic.id);
                self.apic.icr = 0;
            }
            _ => {}
        }
        self.apic.base = value;
        // The register page may have moved over or away from memory.
        self.run.tlb.flush_worlds();
        self.publish_apic();
        self.run.attention |= attention::INTERRUPTS;
        true
    }
}
