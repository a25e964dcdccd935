//! The registers of the local APIC: xAPIC memory page and x2APIC MSRs (SDM Vol. 3A, tables 10-1
//! and 10-6).

use cloister_x86::Gpa;

use super::local::{SVR_ENABLE, SVR_SUPPRESS_EOI, esr, lvt};
use super::message::{Destination, Message, delivery, post, send};
use crate::cpu::Cpu;

/// Register numbers: the xAPIC offset divided by 16, the x2APIC MSR minus 800H.
pub(crate) mod register {
    pub(crate) const ID: u32 = 0x02;
    pub(crate) const VERSION: u32 = 0x03;
    pub(crate) const TPR: u32 = 0x08;
    pub(crate) const APR: u32 = 0x09;
    pub(crate) const PPR: u32 = 0x0a;
    pub(crate) const EOI: u32 = 0x0b;
    pub(crate) const RRD: u32 = 0x0c;
    pub(crate) const LDR: u32 = 0x0d;
    pub(crate) const DFR: u32 = 0x0e;
    pub(crate) const SVR: u32 = 0x0f;
    pub(crate) const ISR: u32 = 0x10;
    pub(crate) const TMR: u32 = 0x18;
    pub(crate) const IRR: u32 = 0x20;
    pub(crate) const ESR: u32 = 0x28;
    pub(crate) const ICR_LOW: u32 = 0x30;
    pub(crate) const ICR_HIGH: u32 = 0x31;
    pub(crate) const LVT_TIMER: u32 = 0x32;
    pub(crate) const LVT_THERMAL: u32 = 0x33;
    pub(crate) const LVT_PERFORMANCE: u32 = 0x34;
    pub(crate) const LVT_LINT0: u32 = 0x35;
    pub(crate) const LVT_LINT1: u32 = 0x36;
    pub(crate) const LVT_ERROR: u32 = 0x37;
    pub(crate) const INITIAL_COUNT: u32 = 0x38;
    pub(crate) const CURRENT_COUNT: u32 = 0x39;
    pub(crate) const DIVIDE: u32 = 0x3e;
    pub(crate) const SELF_IPI: u32 = 0x3f;
}

/// Version 14H, 6 LVT entries, EOI broadcasts can be suppressed.
const VERSION: u32 = 0x14 | (lvt::COUNT as u32 - 1) << 16 | 1 << 24;
/// Writable bits of ICR's low half: vector, modes, level, trigger, shorthand.
const ICR_LOW_WRITABLE: u32 = 0x000c_cfff;

/// The LVT entry that a register is, and its writable bits.
const fn lvt_entry(number: u32) -> Option<(usize, u32)> {
    Some(match number {
        register::LVT_TIMER => (lvt::TIMER, 0x0007_00ff),
        register::LVT_THERMAL => (lvt::THERMAL, 0x0001_07ff),
        register::LVT_PERFORMANCE => (lvt::PERFORMANCE, 0x0001_07ff),
        register::LVT_LINT0 => (lvt::LINT0, 0x0001_a7ff),
        register::LVT_LINT1 => (lvt::LINT1, 0x0001_a7ff),
        register::LVT_ERROR => (lvt::ERROR, 0x0001_00ff),
        _ => return None,
    })
}

impl Cpu {
    /// Reads xAPIC registers. Registers are read by aligned doublewords; of a wider read only the
    /// first doubleword is the register's.
    pub(crate) fn apic_mmio_read(&mut self, gpa: Gpa, len: usize) -> u64 {
        let offset = gpa.page_offset() as u32;
        if offset & 0xf > 3 {
            return 0;
        }
        let value = match offset >> 4 {
            register::ID => self.apic.id << 24,
            register::DFR => self.apic.dfr,
            register::APR | register::RRD => 0,
            number => match self.apic_read(number) {
                Some(value) => value,
                None => {
                    self.apic_error(esr::ILLEGAL_REGISTER);
                    0
                }
            },
        };
        let value = u64::from(value) >> ((offset & 3) * 8);
        if len >= 8 { value } else { value & ((1 << (8 * len)) - 1) }
    }

    /// Writes an xAPIC register. Only aligned doubleword writes have an effect.
    pub(crate) fn apic_mmio_write(&mut self, gpa: Gpa, len: usize, value: u64) {
        let offset = gpa.page_offset() as u32;
        if offset & 0xf != 0 || len < 4 {
            return;
        }
        let value = value as u32;
        match offset >> 4 {
            register::ICR_LOW => {
                self.apic.icr = self.apic.icr >> 32 << 32 | u64::from(value & ICR_LOW_WRITABLE);
                self.send_ipi();
            }
            register::ICR_HIGH => {
                self.apic.icr = self.apic.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
            }
            register::LDR => {
                self.apic.ldr = value & 0xff00_0000;
                self.publish_apic();
            }
            register::DFR => {
                self.apic.dfr = value | 0x0fff_ffff;
                self.publish_apic();
            }
            register::ESR => self.write_esr(),
            // The ID is fixed.
            register::ID => {}
            number => {
                // Writes to read-only registers are dropped.
                if !self.apic_write(number, value) && self.apic_read(number).is_none() {
                    self.apic_error(esr::ILLEGAL_REGISTER);
                }
            }
        }
    }

    /// RDMSR of x2APIC register `number`; `None`: #GP.
    pub(crate) fn x2apic_read(&mut self, number: u32) -> Option<u64> {
        if !self.apic.is_x2apic() {
            return None;
        }
        match number {
            register::ID => Some(u64::from(self.apic.id)),
            register::ICR_LOW => Some(self.apic.icr),
            register::ICR_HIGH => None,
            _ => self.apic_read(number).map(u64::from),
        }
    }

    /// WRMSR of x2APIC register `number`; `false`: #GP (SDM Vol. 3A, 10.12.1.2).
    pub(crate) fn x2apic_write(&mut self, number: u32, value: u64) -> bool {
        if !self.apic.is_x2apic() {
            return false;
        }
        if number == register::ICR_LOW {
            if value as u32 & !ICR_LOW_WRITABLE != 0 {
                return false;
            }
            self.apic.icr = value;
            self.send_ipi();
            return true;
        }
        if value >> 32 != 0 {
            return false;
        }
        let value = value as u32;
        match number {
            register::ESR | register::EOI if value != 0 => false,
            register::ESR => {
                self.write_esr();
                true
            }
            register::SELF_IPI => {
                if value > 0xff {
                    return false;
                }
                self.self_ipi(value as u8);
                true
            }
            register::TPR if value > 0xff => false,
            register::SVR if value & !(0xff | SVR_ENABLE | SVR_SUPPRESS_EOI) != 0 => false,
            register::DIVIDE if value & !0xb != 0 => false,
            _ => {
                // Delivery status and remote IRR are read-only, all else must be zero.
                let reserved = lvt_entry(number)
                    .is_some_and(|(_, writable)| value & !(writable | 0x5000) != 0);
                !reserved && self.apic_write(number, value)
            }
        }
    }

    /// Registers that read alike in both modes.
    fn apic_read(&mut self, number: u32) -> Option<u32> {
        if let Some((entry, _)) = lvt_entry(number) {
            return Some(self.apic.lvt[entry]);
        }
        Some(match number {
            register::VERSION => VERSION,
            register::TPR => u32::from(self.apic.tpr),
            register::PPR => u32::from(self.apic.processor_priority()),
            register::EOI if !self.apic.is_x2apic() => 0,
            register::LDR => self.apic.ldr,
            register::SVR => self.apic.svr,
            register::ISR..register::TMR => {
                self.apic.isr.register((number - register::ISR) as usize)
            }
            register::TMR..register::IRR => {
                self.apic.tmr.register((number - register::TMR) as usize)
            }
            register::IRR..register::ESR => {
                self.apic.irr.register((number - register::IRR) as usize)
            }
            register::ESR => self.apic.esr,
            register::ICR_LOW => self.apic.icr as u32,
            register::ICR_HIGH => (self.apic.icr >> 32) as u32,
            register::INITIAL_COUNT => self.apic.timer.initial_count,
            register::CURRENT_COUNT => {
                super::poll_timer(self);
                self.current_count()
            }
            register::DIVIDE => self.apic.timer.divide,
            _ => return None,
        })
    }

    /// Registers that are written alike in both modes; `false` for others.
    fn apic_write(&mut self, number: u32, value: u32) -> bool {
        if let Some((entry, writable)) = lvt_entry(number) {
            let mut value = value & writable;
            if self.apic.svr & SVR_ENABLE == 0 {
                // Entries stay masked while the APIC is software-disabled.
                value |= lvt::MASKED;
            }
            if entry == lvt::TIMER {
                self.set_lvt_timer(value);
            } else {
                self.apic.lvt[entry] = value;
            }
            return true;
        }
        match number {
            register::TPR => self.set_task_priority(value as u8),
            register::EOI => self.apic_eoi(),
            register::SVR => {
                self.apic.svr = value & (0xff | SVR_ENABLE | SVR_SUPPRESS_EOI);
                if value & SVR_ENABLE == 0 {
                    for entry in &mut self.apic.lvt {
                        *entry |= lvt::MASKED;
                    }
                }
            }
            register::INITIAL_COUNT => self.set_initial_count(value),
            register::DIVIDE => self.set_divide(value),
            _ => return false,
        }
        true
    }

    /// A write shows the errors since the last one (SDM Vol. 3A, 10.5.3).
    fn write_esr(&mut self) {
        self.apic.esr = std::mem::take(&mut self.apic.esr_next);
    }

    fn self_ipi(&mut self, vector: u8) {
        if vector < 16 {
            self.apic_error(esr::SEND_ILLEGAL_VECTOR);
        } else {
            self.apic_accept(vector, false);
        }
    }

    /// Sends what ICR says (SDM Vol. 3A, 10.6).
    fn send_ipi(&mut self) {
        let icr = self.apic.icr;
        let message = Message {
            vector: icr as u8,
            mode: (icr >> 8) as u32 & 7,
            // IPIs are edge-triggered, but for the INIT de-assert below.
            level: false,
        };
        let fixed = matches!(message.mode, delivery::FIXED | delivery::LOWEST_PRIORITY);
        if fixed && message.vector < 16 {
            self.apic_error(esr::SEND_ILLEGAL_VECTOR);
            return;
        }
        if message.mode == delivery::INIT && icr & 1 << 15 != 0 && icr & 1 << 14 == 0 {
            // INIT level de-assert: has no effect on these processors.
            return;
        }
        let own = self.apic.id as usize;
        match icr >> 18 & 3 {
            0 => {
                let wide = self.apic.is_x2apic();
                let to = Destination {
                    id: (icr >> if wide { 32 } else { 56 }) as u32,
                    logical: icr & 1 << 11 != 0,
                    wide,
                };
                send(&self.package, to, message);
            }
            1 => {
                // Other modes are not valid combinations (SDM Vol. 3A, table 10-3); they do as they
                // say.
                if fixed {
                    self.apic_accept(message.vector, false);
                } else {
                    post(&self.package, own, message);
                }
            }
            shorthand => {
                for id in 0..self.package.kickers.len() {
                    if shorthand == 2 || id != own {
                        post(&self.package, id, message);
                    }
                }
            }
        }
    }
}
