//! Virtual-machine extensions (SDM Vol. 3C, chapters 23 to 30): the guest hypervisor's, which runs
//! on this processor, and not the owner's, which [`crate::Controls`] has.
//!
//! A VMCS lies in guest memory ([`region`]). VM entry ([`entry`]) reads it once into plain data, judges
//! that and uses it; a processor in VMX non-root operation keeps what it needs until the exit
//! ([`NonRoot`]). Whatever causes an exit ([`intercept`], [`event`], an EPT violation in
//! [`crate::mem`]) describes it ([`VmExit`]); [`exit`] saves guest state, reports the exit and loads host state.
//!
//! Intercepts are looked at by the handlers of the instructions concerned, all of which are slow
//! already, after the faults that come before an exit (SDM Vol. 3C, 25.1.1). Decoded and translated
//! code is the same inside and outside.

pub(crate) mod apic_access;
pub(crate) mod capability;
pub(crate) mod controls;
pub(crate) mod entry;
pub(crate) mod event;
pub(crate) mod exit;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzzing;
mod guest;
mod guest_check;
mod host;
pub(crate) mod info;
pub(crate) mod intercept;
mod msr_list;
pub(crate) mod region;
mod segment;
pub(crate) mod virtual_apic;
pub(crate) mod window;
mod x2apic;

use cloister_x86::vmx::ExitReason;

pub(crate) use controls::ExecutionControls;
pub(crate) use host::HostState;
use virtual_apic::VirtualInterrupts;

use crate::cpu::Cpu;
use crate::exit::Stop;
use crate::mem::world::{Paging, WorldKey};
use crate::op::Op;

/// What a processor keeps in VMX non-root operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NonRoot {
    /// The controls of the current VMCS, as they were judged at VM entry.
    pub(crate) controls: ExecutionControls,
    /// Its host state.
    pub(crate) host: HostState,
    /// An exit that comes before the next instruction: of the monitor trap flag, the TPR threshold or
    /// the virtual APIC.
    pub(crate) pending: Option<VmExit>,
    /// When the VMX-preemption timer expires, on the machine's time stamp counter.
    pub(crate) deadline: Option<u64>,
    /// Whether VM entry found an event of an enclave in the interruptibility state, which stays while what it
    /// injects is delivered.
    pub(crate) enclave_interruption: bool,
    /// PAUSEs at CPL 0 since VM entry.
    pub(crate) pauses: Option<Pauses>,
    /// PML index.
    pub(crate) pml_index: u16,
    /// Virtual interrupts, with virtual-interrupt delivery.
    pub(crate) interrupts: VirtualInterrupts,
    /// VMCS link pointer: the VMCS that VMREAD and VMWRITE of the guest access with VMCS shadowing.
    pub(crate) link_pointer: Option<u64>,
}

impl NonRoot {
    /// That of a VMCS whose guest state has zeros.
    pub(crate) fn new(controls: ExecutionControls, host: HostState) -> Self {
        Self {
            controls,
            host,
            pending: None,
            deadline: None,
            enclave_interruption: false,
            pauses: None,
            pml_index: 0,
            interrupts: VirtualInterrupts::default(),
            link_pointer: None,
        }
    }
}

/// When PAUSE ran in a loop, for the first and for the last time, on the machine's time stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pauses {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Pauses {
    /// How much longer a round of a loop takes here than on the processors that hypervisors choose
    /// PLE_GAP for: Linux takes 128 counts of a 2 GHz counter, 64 ns, and an interpreted round of three
    /// instructions with a locked one takes longer than that.
    const SLOWER: u64 = 32;

    /// With a PAUSE `now` after those before it: one more of their loop, or the first of another.
    pub(crate) fn with(before: Option<Self>, now: u64, gap: u32) -> Self {
        let first = match before {
            Some(before) if now.wrapping_sub(before.last) <= u64::from(gap) * Self::SLOWER => {
                before.first
            }
            _ => now,
        };
        Self { first, last: now }
    }
}

/// A VM exit: what its VMCS fields say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VmExit {
    /// Why.
    pub(crate) reason: ExitReason,
    /// Exit qualification.
    pub(crate) qualification: u64,
    /// Guest linear address.
    pub(crate) linear: u64,
    /// Guest-physical address.
    pub(crate) physical: u64,
    /// Interruption information.
    pub(crate) interruption: u32,
    /// Interruption error code.
    pub(crate) error_code: u32,
    /// Instruction length in bytes.
    pub(crate) length: u32,
    /// Instruction information.
    pub(crate) instruction: u32,
    /// RF as it is saved, where it is not as it is.
    pub(crate) resume_flag: Option<bool>,
}

impl VmExit {
    /// An exit that no instruction asked for.
    pub(crate) const fn new(reason: ExitReason) -> Self {
        Self {
            reason,
            qualification: 0,
            linear: 0,
            physical: 0,
            interruption: 0,
            error_code: 0,
            length: 0,
            instruction: 0,
            resume_flag: None,
        }
    }

    /// An exit of an instruction: RF is saved as 0 (SDM Vol. 3C, 27.3.3).
    pub(crate) const fn of(reason: ExitReason, op: &Op) -> Self {
        Self { length: op.len as u32, resume_flag: Some(false), ..Self::new(reason) }
    }

    /// With this qualification.
    pub(crate) const fn qualified(self, qualification: u64) -> Self {
        Self { qualification, ..self }
    }

    /// With this instruction information.
    pub(crate) const fn informed(self, instruction: u32) -> Self {
        Self { instruction, ..self }
    }
}

impl Cpu {
    /// In VMX operation.
    pub(crate) const fn in_vmx(&self) -> bool {
        self.arch.vmx.vmxon.is_some()
    }

    /// In VMX non-root operation: what the guest hypervisor decided.
    #[inline(always)]
    pub(crate) fn guest_controls(&self) -> Option<&ExecutionControls> {
        self.arch.vmx.guest.as_ref().map(|guest| &guest.controls)
    }

    /// Goes to the translations of `world`, from those that were made under `left`; without one, drops
    /// what there are (SDM Vol. 3C, 28.4.3.1). Other derived state follows the architectural one.
    pub(crate) fn enter_world(&mut self, world: Option<WorldKey>, left: Paging) {
        let entered = self.paging();
        match world {
            Some(key) => self.run.tlb.change_world(key, left, entered),
            None => {
                self.run.tlb.flush_all();
                self.run.tlb.switch_to_flushed(entered.pcid());
                // These could stay. But kvm-unit-tests, which does without VPIDs, expects to see dirty
                // flags that it has cleared set again, without INVEPT.
                self.run.guest_pages.drop_all();
            }
        }
        self.update_derived();
    }

    /// Records a VM exit; the caller returns the result as its error.
    #[cold]
    pub(crate) fn vm_exit(&mut self, exit: VmExit) -> Stop {
        self.run.vm_exit = Some(exit);
        Stop::VM_EXIT
    }
}

#[cfg(test)]
pub(crate) mod tests;
