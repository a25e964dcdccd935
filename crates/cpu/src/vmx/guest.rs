//! Guest state of a VMCS: loaded by VM entry, saved by VM exits (SDM Vol. 3C, 24.4, 26.3.2 and 27.3).

use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags};
use cloister_x86::segment::seg;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{
    EntryControls, ExitControls, Interruptibility, SecondaryControls, activity,
};
use cloister_x86::{Gpr, Segment, TableRegister};

use super::controls::ExecutionControls;
use super::host::loaded_cr0;
use super::region::Region;
use super::segment;
use crate::cpu::Cpu;
use crate::state::{Activity, Shadow};

/// Pending debug exceptions: a breakpoint was met.
const ENABLED_BREAKPOINT: u64 = 1 << 12;
/// DR6 bits of pending debug exceptions.
const PENDING: u64 = 0x400f;

/// Guest state.
#[derive(Clone, Debug)]
pub(super) struct GuestState {
    pub(super) cr0: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) dr7: u64,
    pub(super) rsp: u64,
    pub(super) rip: u64,
    pub(super) rflags: u64,
    pub(super) segments: [Segment; 8],
    pub(super) gdtr: (u64, u32),
    pub(super) idtr: (u64, u32),
    pub(super) debugctl: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pub(super) pat: u64,
    pub(super) efer: u64,
    pub(super) activity: u32,
    pub(super) interruptibility: u32,
    pub(super) pending_debug: u64,
    pub(super) link_pointer: u64,
    pub(super) pdptes: [u64; 4],
    pub(super) preemption_timer: u32,
    pub(super) pml_index: u16,
    pub(super) interrupt_status: u16,
}

impl GuestState {
    /// Reads it.
    pub(super) fn read(vmcs: Region<'_>) -> Self {
        let table = |base, limit| (vmcs.read(base), vmcs.read_32(limit));
        Self {
            cr0: vmcs.read(Field::GUEST_CR0),
            cr3: vmcs.read(Field::GUEST_CR3),
            cr4: vmcs.read(Field::GUEST_CR4),
            dr7: vmcs.read(Field::GUEST_DR7),
            rsp: vmcs.read(Field::GUEST_RSP),
            rip: vmcs.read(Field::GUEST_RIP),
            rflags: vmcs.read(Field::GUEST_RFLAGS),
            segments: segment::read(vmcs),
            gdtr: table(Field::GUEST_GDTR_BASE, Field::GUEST_GDTR_LIMIT),
            idtr: table(Field::GUEST_IDTR_BASE, Field::GUEST_IDTR_LIMIT),
            debugctl: vmcs.read(Field::GUEST_DEBUGCTL),
            sysenter_cs: vmcs.read(Field::GUEST_SYSENTER_CS),
            sysenter_esp: vmcs.read(Field::GUEST_SYSENTER_ESP),
            sysenter_eip: vmcs.read(Field::GUEST_SYSENTER_EIP),
            pat: vmcs.read(Field::GUEST_PAT),
            efer: vmcs.read(Field::GUEST_EFER),
            activity: vmcs.read_32(Field::GUEST_ACTIVITY),
            interruptibility: vmcs.read_32(Field::GUEST_INTERRUPTIBILITY),
            pending_debug: vmcs.read(Field::GUEST_PENDING_DEBUG),
            link_pointer: vmcs.read(Field::LINK_POINTER),
            pdptes: std::array::from_fn(|n| vmcs.read(Field::GUEST_PDPTE0.plus(n as u32))),
            preemption_timer: vmcs.read_32(Field::PREEMPTION_TIMER),
            pml_index: vmcs.read(Field::GUEST_PML_INDEX) as u16,
            interrupt_status: vmcs.read(Field::GUEST_INTERRUPT_STATUS) as u16,
        }
    }

    /// Whether it uses PAE paging.
    pub(super) fn has_pae_paging(&self, controls: &ExecutionControls) -> bool {
        Cr0::from_bits_retain(self.cr0).contains(Cr0::PG)
            && Cr4::from_bits_retain(self.cr4).contains(Cr4::PAE)
            && !controls.entry.contains(EntryControls::IA32E)
    }

    /// Loads it, but for the PDPTEs and what the caller derives of it.
    pub(super) fn load(&self, cpu: &mut Cpu, controls: &ExecutionControls) {
        let ia32e = controls.entry.contains(EntryControls::IA32E);
        let arch = &mut cpu.arch;
        arch.cr0 = loaded_cr0(arch.cr0, self.cr0);
        arch.cr3 = self.cr3;
        arch.cr4 = Cr4::from_bits_truncate(self.cr4);
        if controls.entry.contains(EntryControls::LOAD_DEBUG) {
            arch.dr7 = self.dr7 & 0xffff_23ff | 0x400;
            arch.msrs.debugctl = self.debugctl;
        }
        arch.msrs.sysenter_cs = self.sysenter_cs;
        arch.msrs.sysenter_esp = self.sysenter_esp;
        arch.msrs.sysenter_eip = self.sysenter_eip;
        if controls.entry.contains(EntryControls::LOAD_EFER) {
            arch.efer = Efer::from_bits_truncate(self.efer);
        } else {
            arch.efer.set(Efer::LMA, ia32e);
            if arch.cr0.contains(Cr0::PG) {
                arch.efer.set(Efer::LME, ia32e);
            }
        }
        if controls.entry.contains(EntryControls::LOAD_PAT) {
            arch.msrs.pat = self.pat;
        }
        arch.segs = self.segments;
        arch.gdtr = TableRegister { base: self.gdtr.0, limit: self.gdtr.1 as u16 };
        arch.idtr = TableRegister { base: self.idtr.0, limit: self.idtr.1 as u16 };
        arch.gpr[Gpr::Rsp] = self.rsp;
        arch.rip = self.rip;
        arch.set_rflags(self.rflags);
        arch.cpl = self.segments[seg::SS].rights.dpl();
        let blocking = Interruptibility::from_bits_truncate(self.interruptibility);
        arch.shadow = if blocking.contains(Interruptibility::MOV_SS) {
            Shadow::MovSs
        } else if blocking.contains(Interruptibility::STI) {
            Shadow::Sti
        } else {
            Shadow::None
        };
        arch.nmi_blocked = blocking.contains(Interruptibility::NMI);
        arch.activity = match self.activity {
            activity::HLT => Activity::Halted,
            activity::WAIT_FOR_SIPI => Activity::WaitForSipi,
            _ => Activity::Active,
        };
        arch.debug_pending = self.pending_debug & PENDING;
    }
}

/// What of the state to save an exit decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saved {
    pub(super) rflags: u64,
    /// Pending debug exceptions, as DR6 has them.
    pub(super) pending_debug: u64,
    /// The VMX-preemption timer, if it counts and is saved.
    pub(super) preemption_timer: Option<u32>,
    pub(super) enclave_interruption: bool,
    pub(super) pml_index: u16,
    pub(super) interrupt_status: u16,
}

/// Saves guest state.
pub(super) fn save(vmcs: Region<'_>, cpu: &Cpu, controls: &ExecutionControls, saved: Saved) {
    let arch = &cpu.arch;
    let exit = controls.exit;
    vmcs.write(Field::GUEST_CR0, arch.cr0.bits());
    vmcs.write(Field::GUEST_CR3, arch.cr3);
    vmcs.write(Field::GUEST_CR4, arch.cr4.bits());
    if exit.contains(ExitControls::SAVE_DEBUG) {
        vmcs.write(Field::GUEST_DR7, arch.dr7);
        vmcs.write(Field::GUEST_DEBUGCTL, arch.msrs.debugctl);
    }
    vmcs.write(Field::GUEST_SYSENTER_CS, arch.msrs.sysenter_cs);
    vmcs.write(Field::GUEST_SYSENTER_ESP, arch.msrs.sysenter_esp);
    vmcs.write(Field::GUEST_SYSENTER_EIP, arch.msrs.sysenter_eip);
    if exit.contains(ExitControls::SAVE_PAT) {
        vmcs.write(Field::GUEST_PAT, arch.msrs.pat);
    }
    if exit.contains(ExitControls::SAVE_EFER) {
        vmcs.write(Field::GUEST_EFER, arch.efer.bits());
    }
    segment::save(vmcs, &arch.segs);
    vmcs.write(Field::GUEST_GDTR_BASE, arch.gdtr.base);
    vmcs.write(Field::GUEST_GDTR_LIMIT, arch.gdtr.limit.into());
    vmcs.write(Field::GUEST_IDTR_BASE, arch.idtr.base);
    vmcs.write(Field::GUEST_IDTR_LIMIT, arch.idtr.limit.into());
    vmcs.write(Field::GUEST_RSP, arch.gpr[Gpr::Rsp]);
    vmcs.write(Field::GUEST_RIP, arch.rip);
    vmcs.write(Field::GUEST_RFLAGS, saved.rflags);
    if controls.has_ept() && cpu.pae_paging() {
        for (n, pdpte) in (0..).zip(arch.pdptes) {
            vmcs.write(Field::GUEST_PDPTE0.plus(n), pdpte);
        }
    }
    save_blocking(vmcs, cpu, saved);
    if controls.secondary.contains(SecondaryControls::PAGE_MODIFICATION_LOG) {
        vmcs.write(Field::GUEST_PML_INDEX, saved.pml_index.into());
    }
    if controls.has_virtual_interrupts() {
        vmcs.write(Field::GUEST_INTERRUPT_STATUS, saved.interrupt_status.into());
    }
    if let Some(timer) = saved.preemption_timer {
        vmcs.write(Field::PREEMPTION_TIMER, timer.into());
    }
    // The IA-32e-mode-guest control follows EFER.LMA (SDM Vol. 3C, 27.2).
    let entry = vmcs.read_32(Field::ENTRY_CONTROLS) & !EntryControls::IA32E.bits();
    let ia32e = if cpu.long_mode() { EntryControls::IA32E } else { EntryControls::empty() };
    vmcs.write(Field::ENTRY_CONTROLS, (entry | ia32e.bits()).into());
}

/// Non-register state (SDM Vol. 3C, 27.3.4).
fn save_blocking(vmcs: Region<'_>, cpu: &Cpu, saved: Saved) {
    let arch = &cpu.arch;
    let mut blocking = match arch.shadow {
        Shadow::None => Interruptibility::empty(),
        Shadow::Sti => Interruptibility::STI,
        Shadow::MovSs => Interruptibility::MOV_SS,
    };
    blocking.set(Interruptibility::NMI, arch.nmi_blocked);
    blocking.set(Interruptibility::ENCLAVE, saved.enclave_interruption);
    vmcs.write(Field::GUEST_INTERRUPTIBILITY, blocking.bits().into());
    let activity = match arch.activity {
        Activity::Active => activity::ACTIVE,
        Activity::Halted => activity::HLT,
        Activity::WaitForSipi => activity::WAIT_FOR_SIPI,
    };
    vmcs.write(Field::GUEST_ACTIVITY, activity.into());
    let pending = saved.pending_debug & PENDING;
    let met = if pending & 0xf != 0 { ENABLED_BREAKPOINT } else { 0 };
    vmcs.write(Field::GUEST_PENDING_DEBUG, pending | met);
}

/// RFLAGS with RF as an exit saves it.
pub(super) fn with_resume_flag(rflags: u64, resume_flag: Option<bool>) -> u64 {
    match resume_flag {
        None => rflags,
        Some(true) => rflags | Rflags::RF.bits(),
        Some(false) => rflags & !Rflags::RF.bits(),
    }
}
