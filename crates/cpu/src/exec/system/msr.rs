//! RDMSR and WRMSR, and the model-specific registers that the processor owns (SDM Vol. 4): those
//! that execution depends on. All others exit to the owner.

use cloister_x86::addr::is_canonical;
use cloister_x86::regs::{Cr0, Efer};
use cloister_x86::segment::seg;
use cloister_x86::{Gpr, msr};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::{Exec, Exit};
use crate::op::Op;
use crate::vmx::capability;

/// Whether each byte of an IA32_PAT value is a memory type (SDM Vol. 3A, table 11-10).
pub(crate) fn are_pat_types(value: u64) -> bool {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

rows! {
    Rdmsr => always(rdmsr).ends_block(),
    Wrmsr => always(wrmsr).ends_block(),
}

extern "C" fn rdmsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let index = cpu.arch.gpr[Gpr::Rcx] as u32;
    cpu.intercept_msr(op, index, false)?;
    let value = match cpu.virtual_x2apic_read(index) {
        Some(value) => Some(value),
        None => cpu.read_msr(index)?,
    };
    let Some(value) = value else { return Err(cpu.exit_with(Exit::Rdmsr { index })) };
    cpu.arch.gpr[Gpr::Rax] = value & 0xffff_ffff;
    cpu.arch.gpr[Gpr::Rdx] = value >> 32;
    Ok(())
}

extern "C" fn wrmsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_cpl0()?;
    let index = cpu.arch.gpr[Gpr::Rcx] as u32;
    cpu.intercept_msr(op, index, true)?;
    let value = cpu.arch.gpr[Gpr::Rax] & 0xffff_ffff | cpu.arch.gpr[Gpr::Rdx] << 32;
    if cpu.virtual_x2apic_write(index, value)? || cpu.write_msr(index, value)? {
        Ok(())
    } else {
        Err(cpu.exit_with(Exit::Wrmsr { index, value }))
    }
}

impl Cpu {
    /// Reads an MSR; `None` for one that the processor does not own.
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn read_msr(&mut self, index: u32) -> Exec<Option<u64>> {
        if let Some(register) = index.checked_sub(msr::X2APIC)
            && register < 0x100
        {
            return match self.x2apic_read(register) {
                Some(value) => Ok(Some(value)),
                None => Err(self.gp(0)),
            };
        }
        Ok(Some(match index {
            msr::EFER => self.arch.efer.bits(),
            msr::STAR => self.arch.msrs.star,
            msr::LSTAR => self.arch.msrs.lstar,
            msr::CSTAR => self.arch.msrs.cstar,
            msr::FMASK => self.arch.msrs.fmask,
            msr::FS_BASE => self.arch.segs[seg::FS].base,
            msr::GS_BASE => self.arch.segs[seg::GS].base,
            msr::KERNEL_GS_BASE => self.arch.msrs.kernel_gs_base,
            msr::TSC_AUX => self.arch.msrs.tsc_aux,
            // No supervisor state component is supported.
            msr::XSS => 0,
            msr::TSC => self.guest_tsc(),
            msr::TSC_ADJUST => self.arch.msrs.tsc_offset,
            msr::TSC_DEADLINE => self.tsc_deadline(),
            msr::APIC_BASE => self.apic.base(),
            msr::SYSENTER_CS => self.arch.msrs.sysenter_cs,
            msr::SYSENTER_ESP => self.arch.msrs.sysenter_esp,
            msr::SYSENTER_EIP => self.arch.msrs.sysenter_eip,
            msr::PAT => self.arch.msrs.pat,
            msr::DEBUGCTL => self.arch.msrs.debugctl,
            msr::SPEC_CTRL => self.arch.msrs.spec_ctrl,
            _ if self.ctl.features.vmx => return Ok(capability::read(index, &self.ctl.features)),
            _ => return Ok(None),
        }))
    }

    /// Writes an MSR; `false` for one that the processor does not own.
    ///
    /// # Errors
    ///
    /// #GP(0).
    pub(crate) fn write_msr(&mut self, index: u32, value: u64) -> Exec<bool> {
        if let Some(register) = index.checked_sub(msr::X2APIC)
            && register < 0x100
        {
            return if self.x2apic_write(register, value) { Ok(true) } else { Err(self.gp(0)) };
        }
        let holds_address = matches!(
            index,
            msr::LSTAR
                | msr::CSTAR
                | msr::FS_BASE
                | msr::GS_BASE
                | msr::KERNEL_GS_BASE
                | msr::SYSENTER_ESP
                | msr::SYSENTER_EIP
        );
        if holds_address && !is_canonical(value) {
            return Err(self.gp(0));
        }
        let accepted = match index {
            msr::EFER => return self.write_efer(value).map(|()| true),
            msr::STAR => store(&mut self.arch.msrs.star, value, u64::MAX),
            msr::LSTAR => store(&mut self.arch.msrs.lstar, value, u64::MAX),
            msr::CSTAR => store(&mut self.arch.msrs.cstar, value, u64::MAX),
            msr::FMASK => store(&mut self.arch.msrs.fmask, value, 0xffff_ffff),
            msr::FS_BASE => store(&mut self.arch.segs[seg::FS].base, value, u64::MAX),
            msr::GS_BASE => store(&mut self.arch.segs[seg::GS].base, value, u64::MAX),
            msr::KERNEL_GS_BASE => store(&mut self.arch.msrs.kernel_gs_base, value, u64::MAX),
            msr::TSC_AUX => store(&mut self.arch.msrs.tsc_aux, value, 0xffff_ffff),
            msr::XSS => value == 0,
            msr::TSC => {
                self.set_tsc_offset(value.wrapping_sub(self.package.tsc()));
                true
            }
            msr::TSC_ADJUST => {
                self.set_tsc_offset(value);
                true
            }
            msr::TSC_DEADLINE => {
                self.set_tsc_deadline(value);
                true
            }
            msr::APIC_BASE => self.write_apic_base(value),
            msr::SYSENTER_CS => store(&mut self.arch.msrs.sysenter_cs, value, u64::MAX),
            msr::SYSENTER_ESP => store(&mut self.arch.msrs.sysenter_esp, value, u64::MAX),
            msr::SYSENTER_EIP => store(&mut self.arch.msrs.sysenter_eip, value, u64::MAX),
            msr::PAT => are_pat_types(value) && store(&mut self.arch.msrs.pat, value, u64::MAX),
            // LBR and BTF are not there to be enabled.
            msr::DEBUGCTL => store(&mut self.arch.msrs.debugctl, value, DEBUGCTL),
            // Nothing speculates. Hypervisors write these on each entry and exit.
            msr::SPEC_CTRL => store(&mut self.arch.msrs.spec_ctrl, value, SPEC_CTRL),
            msr::PRED_CMD => value & !PRED_CMD == 0,
            _ => return Ok(false),
        };
        if accepted { Ok(true) } else { Err(self.gp(0)) }
    }

    fn write_efer(&mut self, value: u64) -> Exec {
        // LMA is read-only.
        let Some(new) = Efer::from_bits(value & !Efer::LMA.bits()) else {
            return Err(self.gp(0));
        };
        let changed = (self.arch.efer ^ new) & Efer::LME;
        if !changed.is_empty() && self.arch.cr0.contains(Cr0::PG) {
            return Err(self.gp(0));
        }
        let nxe = (self.arch.efer ^ new).contains(Efer::NXE);
        if nxe && new.contains(Efer::NXE) && !self.ctl.features.execute_disable {
            return Err(self.gp(0));
        }
        self.arch.efer = new | (self.arch.efer & Efer::LMA);
        if nxe {
            self.run.tlb.flush_all();
        }
        Ok(())
    }
}

/// Bits of IA32_DEBUGCTL that can be set. Nothing records branches.
pub(crate) const DEBUGCTL: u64 = msr::DEBUGCTL_LBR | msr::DEBUGCTL_BTF;

/// Bits of IA32_SPEC_CTRL that can be set: IBRS, STIBP, SSBD, BHI_DIS_S.
const SPEC_CTRL: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 10;
/// Bits of IA32_PRED_CMD, which is only written: IBPB.
const PRED_CMD: u64 = 1 << 0;

/// Stores a value that has no bits outside `allowed`.
fn store(register: &mut u64, value: u64, allowed: u64) -> bool {
    if value & !allowed != 0 {
        return false;
    }
    *register = value;
    true
}
