//! Host state of a VMCS (SDM Vol. 3C, 24.5, 26.2.2 to 26.2.4 and 27.5).

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::{Cr0, Cr4, Efer};
use cloister_x86::segment::seg;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EntryControls, ExitControls};
use cloister_x86::{Gpr, Rights, Segment, TableRegister};

use super::capability::{CR0_FIXED, CR4_FIXED};
use super::controls::ExecutionControls;
use super::region::Region;
use crate::cpu::Cpu;
use crate::exec::system::control::CR4_ALLOWED;
use crate::exec::system::msr::are_pat_types;

/// Host state: what VM exits load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostState {
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) rsp: u64,
    pub(crate) rip: u64,
    /// ES, CS, SS, DS, FS, GS, TR.
    pub(crate) selectors: [u16; 7],
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    pub(crate) tr_base: u64,
    pub(crate) gdtr_base: u64,
    pub(crate) idtr_base: u64,
    pub(crate) sysenter_cs: u64,
    pub(crate) sysenter_esp: u64,
    pub(crate) sysenter_eip: u64,
    pub(crate) pat: u64,
    pub(crate) efer: u64,
}

impl HostState {
    /// Reads it.
    pub(crate) fn read(vmcs: Region<'_>) -> Self {
        let selector = |n: usize| vmcs.read(Field::HOST_ES_SELECTOR.plus(n as u32)) as u16;
        Self {
            cr0: vmcs.read(Field::HOST_CR0),
            cr3: vmcs.read(Field::HOST_CR3),
            cr4: vmcs.read(Field::HOST_CR4),
            rsp: vmcs.read(Field::HOST_RSP),
            rip: vmcs.read(Field::HOST_RIP),
            selectors: std::array::from_fn(selector),
            fs_base: vmcs.read(Field::HOST_FS_BASE),
            gs_base: vmcs.read(Field::HOST_GS_BASE),
            tr_base: vmcs.read(Field::HOST_TR_BASE),
            gdtr_base: vmcs.read(Field::HOST_GDTR_BASE),
            idtr_base: vmcs.read(Field::HOST_IDTR_BASE),
            sysenter_cs: vmcs.read(Field::HOST_SYSENTER_CS),
            sysenter_esp: vmcs.read(Field::HOST_SYSENTER_ESP),
            sysenter_eip: vmcs.read(Field::HOST_SYSENTER_EIP),
            pat: vmcs.read(Field::HOST_PAT),
            efer: vmcs.read(Field::HOST_EFER),
        }
    }

    /// The checks of VM entry.
    pub(crate) fn is_valid(&self, cpu: &Cpu, controls: &ExecutionControls) -> bool {
        self.registers_valid(cpu, controls)
            && self.segments_valid(controls)
            && self.address_space_valid(cpu, controls)
    }

    /// SDM Vol. 3C, 26.2.2.
    fn registers_valid(&self, cpu: &Cpu, controls: &ExecutionControls) -> bool {
        let exit = controls.exit;
        let host_64 = exit.contains(ExitControls::HOST_64);
        is_valid_cr0(self.cr0, CR0_FIXED)
            && is_valid_cr4(self.cr4)
            && cpu.is_physical(self.cr3)
            && is_canonical(self.sysenter_esp)
            && is_canonical(self.sysenter_eip)
            && (!exit.contains(ExitControls::LOAD_PAT) || are_pat_types(self.pat))
            && (!exit.contains(ExitControls::LOAD_EFER)
                || Efer::from_bits(self.efer).is_some_and(|efer| {
                    efer.contains(Efer::LMA) == host_64 && efer.contains(Efer::LME) == host_64
                }))
    }

    /// SDM Vol. 3C, 26.2.3.
    fn segments_valid(&self, controls: &ExecutionControls) -> bool {
        let host_64 = controls.exit.contains(ExitControls::HOST_64);
        let bases = [self.fs_base, self.gs_base, self.tr_base, self.gdtr_base, self.idtr_base];
        self.selectors.iter().all(|selector| selector & 7 == 0)
            && self.selectors[seg::CS] != 0
            && self.selectors[seg::TR] != 0
            && (host_64 || self.selectors[seg::SS] != 0)
            && bases.iter().all(|&base| is_canonical(base))
    }

    /// SDM Vol. 3C, 26.2.4.
    fn address_space_valid(&self, cpu: &Cpu, controls: &ExecutionControls) -> bool {
        let host_64 = controls.exit.contains(ExitControls::HOST_64);
        let guest_64 = controls.entry.contains(EntryControls::IA32E);
        if cpu.long_mode() != host_64 || (!host_64 && guest_64) {
            return false;
        }
        let cr4 = Cr4::from_bits_retain(self.cr4);
        if host_64 {
            cr4.contains(Cr4::PAE) && is_canonical(self.rip)
        } else {
            !cr4.contains(Cr4::PCIDE) && self.rip >> 32 == 0
        }
    }

    /// Loads it, but for what the caller derives of it (SDM Vol. 3C, 27.5.1 to 27.5.3).
    pub(super) fn load(&self, cpu: &mut Cpu, controls: &ExecutionControls) {
        let host_64 = controls.exit.contains(ExitControls::HOST_64);
        let arch = &mut cpu.arch;
        arch.cr0 = loaded_cr0(arch.cr0, self.cr0);
        arch.cr3 = self.cr3;
        arch.cr4 = Cr4::from_bits_truncate(self.cr4);
        arch.dr7 = 0x400;
        arch.msrs.debugctl = 0;
        arch.msrs.sysenter_cs = self.sysenter_cs;
        arch.msrs.sysenter_esp = self.sysenter_esp;
        arch.msrs.sysenter_eip = self.sysenter_eip;
        if controls.exit.contains(ExitControls::LOAD_EFER) {
            arch.efer = Efer::from_bits_truncate(self.efer);
        } else {
            arch.efer.set(Efer::LMA | Efer::LME, host_64);
        }
        if controls.exit.contains(ExitControls::LOAD_PAT) {
            arch.msrs.pat = self.pat;
        }
        self.load_segments(cpu, host_64);
        let arch = &mut cpu.arch;
        arch.gdtr = TableRegister { base: self.gdtr_base, limit: 0xffff };
        arch.idtr = TableRegister { base: self.idtr_base, limit: 0xffff };
        arch.gpr[Gpr::Rsp] = self.rsp;
        arch.rip = self.rip;
        arch.cpl = 0;
        arch.set_rflags(2);
    }

    /// SDM Vol. 3C, 27.5.2.
    fn load_segments(&self, cpu: &mut Cpu, host_64: bool) {
        const DATA: u32 = Rights::G | Rights::DB | Rights::P | Rights::S | 3;
        const CODE: u32 = Rights::G | Rights::P | Rights::S | 11;
        let segs = &mut cpu.arch.segs;
        for n in [seg::ES, seg::SS, seg::DS, seg::FS, seg::GS] {
            let selector = self.selectors[n];
            let unusable = if selector == 0 { Rights::UNUSABLE } else { 0 };
            segs[n] = Segment::flat(selector, Rights(DATA | unusable));
        }
        segs[seg::FS].base = self.fs_base;
        segs[seg::GS].base = self.gs_base;
        let code = Rights(CODE | if host_64 { Rights::L } else { Rights::DB });
        segs[seg::CS] = Segment::flat(self.selectors[seg::CS], code);
        let rights = Rights(Rights::P | 11);
        let selector = self.selectors[seg::TR];
        segs[seg::TR] = Segment { selector, base: self.tr_base, limit: 0x67, rights };
        segs[seg::LDTR] = Segment { rights: Rights(Rights::UNUSABLE), ..Segment::default() };
    }
}

/// CR0 after a VM entry or exit has loaded `value`: ET, CD and NW stay (SDM Vol. 3C, 26.3.2.1 and
/// 27.5.1).
pub(super) fn loaded_cr0(now: Cr0, value: u64) -> Cr0 {
    let kept = Cr0::ET | Cr0::CD | Cr0::NW;
    (Cr0::from_bits_truncate(value) - kept) | (now & kept)
}

/// Whether CR0 may be loaded in VMX operation, with the bits `fixed` set.
pub(super) const fn is_valid_cr0(cr0: u64, fixed: Cr0) -> bool {
    cr0 >> 32 == 0 && cr0 & fixed.bits() == fixed.bits()
}

/// Whether CR4 may be loaded in VMX operation.
pub(super) const fn is_valid_cr4(cr4: u64) -> bool {
    cr4 & CR4_FIXED.bits() == CR4_FIXED.bits() && cr4 & !CR4_ALLOWED.union(Cr4::VMXE).bits() == 0
}
