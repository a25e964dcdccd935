//! The checks of VM entry on guest state (SDM Vol. 3C, 26.3.1).

use cloister_x86::addr::is_canonical;
use cloister_x86::msr::DEBUGCTL_BTF;
use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags};
use cloister_x86::segment::seg;
use cloister_x86::vmx::{
    EntryControls, Interruptibility, PinControls, SecondaryControls, activity, entry_failure,
    interruption,
};

use super::capability::CR0_FIXED;
use super::controls::{ExecutionControls, is_page};
use super::guest::GuestState;
use super::host::{is_valid_cr0, is_valid_cr4};
use super::region::{NO_LINK, REVISION, SHADOW};
use super::segment::{self, Setting};
use crate::cpu::Cpu;
use crate::exec::system::msr::{DEBUGCTL, are_pat_types};

/// RFLAGS bits that are 0: 63:22, 15, 5 and 3.
const RFLAGS_ZERO: u64 = !0x3f_7fd7;
/// Bits of pending debug exceptions that are 0, with RTM's, as there are no restricted
/// transactions.
const PENDING_ZERO: u64 = !0x500f;
/// BS of pending debug exceptions.
const PENDING_STEP: u64 = 1 << 14;

impl GuestState {
    /// Checks all but the PDPTEs.
    ///
    /// # Errors
    ///
    /// The exit qualification of the failed entry.
    pub(super) fn check(&self, cpu: &Cpu, controls: &ExecutionControls) -> Result<(), u64> {
        let rflags = Rflags::from_bits_retain(self.rflags);
        let setting = Setting {
            virtual_8086: rflags.contains(Rflags::VM),
            protected: Cr0::from_bits_retain(self.cr0).contains(Cr0::PE),
            ia32e: controls.entry.contains(EntryControls::IA32E),
            unrestricted: controls.unrestricted(),
        };
        let valid = self.registers_valid(cpu, controls)
            && segment::are_valid(&self.segments, setting)
            && [self.gdtr, self.idtr]
                .iter()
                .all(|(base, limit)| is_canonical(*base) && limit >> 16 == 0)
            && self.rip_valid(setting)
            && self.rflags_valid(controls, setting)
            && self.activity_valid(controls)
            && self.interruptibility_valid(cpu, controls)
            && self.pending_debug_valid();
        if !valid {
            return Err(entry_failure::OTHER);
        }
        if !self.link_valid(cpu, controls) {
            return Err(entry_failure::LINK_POINTER);
        }
        Ok(())
    }

    /// Control registers, debug registers and MSRs (26.3.1.1).
    fn registers_valid(&self, cpu: &Cpu, controls: &ExecutionControls) -> bool {
        let entry = controls.entry;
        let ia32e = entry.contains(EntryControls::IA32E);
        let debug = entry.contains(EntryControls::LOAD_DEBUG);
        let fixed = if controls.unrestricted() { Cr0::NE } else { CR0_FIXED };
        let (cr0, cr4) = (Cr0::from_bits_retain(self.cr0), Cr4::from_bits_retain(self.cr4));
        let paging = cr0.contains(Cr0::PG);
        is_valid_cr0(self.cr0, fixed)
            && (!paging || cr0.contains(Cr0::PE))
            && is_valid_cr4(self.cr4)
            && (!debug || self.debugctl & !DEBUGCTL == 0)
            && (if ia32e { paging && cr4.contains(Cr4::PAE) } else { !cr4.contains(Cr4::PCIDE) })
            && cpu.is_physical(self.cr3)
            && (!debug || self.dr7 >> 32 == 0)
            && is_canonical(self.sysenter_esp)
            && is_canonical(self.sysenter_eip)
            && (!entry.contains(EntryControls::LOAD_PAT) || are_pat_types(self.pat))
            && (!entry.contains(EntryControls::LOAD_EFER)
                || Efer::from_bits(self.efer).is_some_and(|efer| {
                    efer.contains(Efer::LMA) == ia32e
                        && (!paging || efer.contains(Efer::LME) == ia32e)
                }))
    }

    /// 26.3.1.4: in 64-bit mode, of 48 linear-address bits those from 48 on are the same. That is less
    /// than canonical: a guest that runs off its lower half has such a RIP.
    fn rip_valid(&self, setting: Setting) -> bool {
        if setting.ia32e && self.segments[seg::CS].rights.long() {
            matches!(self.rip >> 48, 0 | 0xffff)
        } else {
            self.rip >> 32 == 0
        }
    }

    /// 26.3.1.4.
    fn rflags_valid(&self, controls: &ExecutionControls, setting: Setting) -> bool {
        let flags = Rflags::from_bits_retain(self.rflags);
        self.rflags & RFLAGS_ZERO == 0
            && self.rflags & 2 != 0
            && !(flags.contains(Rflags::VM) && (setting.ia32e || !setting.protected))
            && (injected(controls) != Some(interruption::EXTERNAL) || flags.contains(Rflags::IF))
    }

    /// 26.3.1.5, activity state.
    fn activity_valid(&self, controls: &ExecutionControls) -> bool {
        use interruption as i;
        let vector = controls.event.information & 0xff;
        let takes = |kind| match self.activity {
            activity::ACTIVE => true,
            activity::HLT => match kind {
                i::EXTERNAL | i::NMI => true,
                i::HARDWARE_EXCEPTION => matches!(vector, 1 | 18),
                _ => kind == i::OTHER,
            },
            _ => false,
        };
        let blocking = Interruptibility::from_bits_retain(self.interruptibility)
            .intersects(Interruptibility::STI | Interruptibility::MOV_SS);
        matches!(self.activity, activity::ACTIVE | activity::HLT | activity::WAIT_FOR_SIPI)
            && (self.activity != activity::HLT || self.segments[seg::SS].rights.dpl() == 0)
            && (self.activity == activity::ACTIVE || !blocking)
            && injected(controls).is_none_or(takes)
    }

    /// 26.3.1.5, interruptibility state.
    fn interruptibility_valid(&self, cpu: &Cpu, controls: &ExecutionControls) -> bool {
        use Interruptibility as I;
        let Some(state) = I::from_bits(self.interruptibility) else { return false };
        let mut forbidden = I::SMI;
        match injected(controls) {
            Some(interruption::EXTERNAL) => forbidden |= I::STI | I::MOV_SS,
            Some(interruption::NMI) => {
                forbidden |= I::MOV_SS;
                forbidden.set(I::NMI, controls.pin.contains(PinControls::VIRTUAL_NMIS));
            }
            _ => {}
        }
        if self.rflags & Rflags::IF.bits() == 0 {
            forbidden |= I::STI;
        }
        if !cpu.ctl.features.has_sgx(cloister_sgx::SgxFeatures::SGX1) {
            forbidden |= I::ENCLAVE;
        }
        !state.intersects(forbidden)
            && !state.contains(I::STI | I::MOV_SS)
            && !state.contains(I::ENCLAVE | I::MOV_SS)
    }

    /// 26.3.1.5, pending debug exceptions.
    fn pending_debug_valid(&self) -> bool {
        let blocked = self.activity == activity::HLT
            || Interruptibility::from_bits_retain(self.interruptibility)
                .intersects(Interruptibility::STI | Interruptibility::MOV_SS);
        let stepping = self.rflags & Rflags::TF.bits() != 0 && self.debugctl & DEBUGCTL_BTF == 0;
        self.pending_debug & PENDING_ZERO == 0
            && (!blocked || (self.pending_debug & PENDING_STEP != 0) == stepping)
    }

    /// 26.3.1.5, VMCS link pointer.
    fn link_valid(&self, cpu: &Cpu, controls: &ExecutionControls) -> bool {
        let shadowing = controls.secondary.contains(SecondaryControls::VMCS_SHADOWING);
        let revision = if shadowing { REVISION | SHADOW } else { REVISION };
        self.link_pointer == NO_LINK
            || (is_page(cpu, self.link_pointer)
                && cpu.vmcs(self.link_pointer).revision() == revision
                && cpu.arch.vmx.current != Some(self.link_pointer))
    }
}

/// The type of the event that VM entry injects, if it does.
fn injected(controls: &ExecutionControls) -> Option<u32> {
    let information = controls.event.information;
    (information & interruption::VALID != 0).then_some(information >> 8 & 7)
}
