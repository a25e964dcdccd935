//! Instructions that cause VM exits (SDM Vol. 3C, 25.1). Handlers ask here after the faults that come
//! first: #UD, and those of privilege and of I/O permission.

use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::vmx::{ExitReason, ProcControls, SecondaryControls};

use super::capability::{CR0_FIXED, CR4_FIXED};
use super::controls::ExecutionControls;
use super::{Pauses, VmExit, info, virtual_apic};
use crate::apic::register;
use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::op::{NO_MEMORY, Op};

/// Access types of the qualification of control-register accesses (SDM Vol. 3C, table 27-3).
mod cr_access {
    pub(super) const MOV_FROM: u64 = 1 << 4;
    pub(super) const CLTS: u64 = 2 << 4;
    pub(super) const LMSW: u64 = 3 << 4;
    /// LMSW with a memory operand.
    pub(super) const LMSW_MEMORY: u64 = 1 << 6;
}

/// An access to an I/O port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoAccess {
    pub(crate) port: u16,
    pub(crate) size: u8,
    pub(crate) input: bool,
    /// INS or OUTS: the linear address of its operand.
    pub(crate) string: Option<u64>,
    /// The port is an immediate.
    pub(crate) immediate: bool,
}

impl Cpu {
    /// A VM exit in VMX non-root operation if `on` says so.
    ///
    /// # Errors
    ///
    /// The exit.
    #[inline(always)]
    pub(crate) fn intercept(
        &mut self,
        op: &Op,
        reason: ExitReason,
        on: impl FnOnce(&ExecutionControls) -> bool,
    ) -> Exec {
        match self.guest_controls() {
            Some(controls) if on(controls) => Err(self.vm_exit(VmExit::of(reason, op))),
            _ => Ok(()),
        }
    }

    /// A VM exit in VMX non-root operation.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_always(&mut self, op: &Op, reason: ExitReason) -> Exec {
        self.intercept(op, reason, |_| true)
    }

    /// A VM exit where a primary control says so.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_if(
        &mut self,
        op: &Op,
        reason: ExitReason,
        control: ProcControls,
    ) -> Exec {
        self.intercept(op, reason, |controls| controls.proc.contains(control))
    }

    /// #UD in VMX non-root operation without a secondary control that the instruction needs.
    ///
    /// # Errors
    ///
    /// #UD.
    pub(crate) fn require_enabled(&mut self, control: SecondaryControls) -> Exec {
        match self.guest_controls() {
            Some(controls) if !controls.secondary.contains(control) => Err(self.ud()),
            _ => Ok(()),
        }
    }

    /// An instruction with a memory operand: its exit, if `on` says so, has instruction information,
    /// which is `information`.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_operand(
        &mut self,
        op: &Op,
        reason: ExitReason,
        information: u32,
        on: impl FnOnce(&ExecutionControls) -> bool,
    ) -> Exec {
        match self.guest_controls() {
            Some(controls) if on(controls) => {
                let exit =
                    VmExit::of(reason, op).qualified(self.displacement(op)).informed(information);
                Err(self.vm_exit(exit))
            }
            _ => Ok(()),
        }
    }

    /// LGDT, SGDT and their relatives.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_descriptor(
        &mut self,
        op: &Op,
        reason: ExitReason,
        identity: u32,
        more: u32,
    ) -> Exec {
        let information = info::operand(op) | identity << 28 | more;
        self.intercept_operand(op, reason, information, |controls| {
            controls.secondary.contains(SecondaryControls::DESCRIPTOR_TABLE)
        })
    }

    /// CR0 as software reads it.
    pub(crate) fn visible_cr0(&self) -> u64 {
        let cr0 = self.arch.cr0.bits();
        self.guest_controls().map_or(cr0, |controls| controls.cr0.read(cr0))
    }

    /// CR4 as software reads it.
    pub(crate) fn visible_cr4(&self) -> u64 {
        let cr4 = self.arch.cr4.bits();
        self.guest_controls().map_or(cr4, |controls| controls.cr4.read(cr4))
    }

    /// MOV to CR0: the value that is written.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_cr0(&mut self, op: &Op, value: u64) -> Exec<u64> {
        let Some(controls) = self.guest_controls() else { return Ok(value) };
        let written = controls.cr0.write(self.arch.cr0.bits(), value);
        written.ok_or_else(|| self.mov_cr_exit(op, 0, op.src, 0))
    }

    /// MOV to CR4: the value that is written.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_cr4(&mut self, op: &Op, value: u64) -> Exec<u64> {
        let Some(controls) = self.guest_controls() else { return Ok(value) };
        let written = controls.cr4.write(self.arch.cr4.bits(), value);
        written.ok_or_else(|| self.mov_cr_exit(op, 4, op.src, 0))
    }

    /// MOV to CR3.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_cr3(&mut self, op: &Op, value: u64) -> Exec {
        let Some(c) = self.guest_controls() else { return Ok(()) };
        let target = c.cr3_targets.iter().take(c.cr3_target_count as usize).any(|&t| t == value);
        if c.proc.contains(ProcControls::CR3_LOAD) && !target {
            return Err(self.mov_cr_exit(op, 3, op.src, 0));
        }
        Ok(())
    }

    /// MOV to CR8; `true` where the value went to the virtual-APIC page.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_cr8(&mut self, op: &Op, value: u64) -> Exec<bool> {
        let Some(c) = self.guest_controls() else { return Ok(false) };
        let (proc, page) = (c.proc, c.virtual_apic);
        if proc.contains(ProcControls::CR8_LOAD) {
            return Err(self.mov_cr_exit(op, 8, op.src, 0));
        }
        if !proc.contains(ProcControls::TPR_SHADOW) {
            return Ok(false);
        }
        self.virtual_apic(page).write(register::TPR, (value as u32) << 4);
        virtual_apic::task_priority_changed(self);
        Ok(true)
    }

    /// MOV from a control register: the value, where it is not the register's own.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_cr_read(&mut self, op: &Op, number: u8) -> Exec<Option<u64>> {
        let Some(c) = self.guest_controls() else { return Ok(None) };
        let exits = match number {
            3 => c.proc.contains(ProcControls::CR3_STORE),
            8 => c.proc.contains(ProcControls::CR8_STORE),
            _ => false,
        };
        if exits {
            return Err(self.mov_cr_exit(op, number, op.dst, cr_access::MOV_FROM));
        }
        let shadowed = number == 8 && c.proc.contains(ProcControls::TPR_SHADOW);
        Ok(shadowed.then(|| u64::from(self.virtual_task_priority(c.virtual_apic) >> 4)))
    }

    fn mov_cr_exit(&mut self, op: &Op, number: u8, gpr: u8, access: u64) -> crate::Stop {
        let qualification = u64::from(number) | access | u64::from(gpr) << 8;
        self.vm_exit(VmExit::of(ExitReason::ControlRegister, op).qualified(qualification))
    }

    /// CLTS: `false` where TS stays, as the guest sees it clear already.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_clts(&mut self, op: &Op) -> Exec<bool> {
        let Some(c) = self.guest_controls() else { return Ok(true) };
        let ts = Cr0::TS.bits();
        if c.cr0.mask & ts == 0 {
            return Ok(true);
        }
        if c.cr0.shadow & ts == 0 {
            return Ok(false);
        }
        Err(self.mov_cr_exit(op, 0, 0, cr_access::CLTS))
    }

    /// LMSW: the low 4 bits that are loaded.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_lmsw(&mut self, op: &Op, source: u16) -> Exec<u16> {
        let cr0 = self.arch.cr0.bits();
        let Some(c) = self.guest_controls() else { return Ok(source) };
        let (mask, wanted) = (c.cr0.mask & 0xf, u64::from(source));
        let changed = (wanted ^ c.cr0.shadow) & mask;
        // PE can be set and not cleared.
        if changed & 0xe != 0 || changed & wanted & 1 != 0 {
            let mut exit = VmExit::of(ExitReason::ControlRegister, op);
            exit.qualification = cr_access::LMSW | wanted << 16;
            if op.mem_operand != NO_MEMORY {
                exit.qualification |= cr_access::LMSW_MEMORY;
                exit.linear = self.operand_address(op);
            }
            return Err(self.vm_exit(exit));
        }
        Ok((wanted & !mask | cr0 & mask) as u16)
    }

    /// MOV to and from debug registers.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_dr(&mut self, op: &Op, number: u8, gpr: u8, from: bool) -> Exec {
        if self.guest_controls().is_some_and(|c| c.proc.contains(ProcControls::MOV_DR)) {
            let qualification = u64::from(number) | u64::from(from) << 4 | u64::from(gpr) << 8;
            let exit = VmExit::of(ExitReason::DebugRegister, op).qualified(qualification);
            return Err(self.vm_exit(exit));
        }
        Ok(())
    }

    /// IN, OUT, INS and OUTS.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_io(&mut self, op: &Op, access: IoAccess) -> Exec {
        let Some(controls) = self.guest_controls() else { return Ok(()) };
        if !self.io_exits(controls, access) {
            return Ok(());
        }
        let IoAccess { port, size, input, string, immediate } = access;
        let qualification = u64::from(size - 1)
            | u64::from(input) << 3
            | u64::from(string.is_some()) << 4
            | u64::from(op.prefix & (crate::op::REPE | crate::op::REPNE) != 0) << 5
            | u64::from(immediate) << 6
            | u64::from(port) << 16;
        let mut exit = VmExit::of(ExitReason::Io, op).qualified(qualification);
        if let Some(linear) = string {
            exit.linear = linear;
            let segment = if input { 0 } else { u32::from(op.seg) };
            exit.instruction = info::address_size(op) << 7 | segment << 15;
        }
        Err(self.vm_exit(exit))
    }

    fn io_exits(&self, controls: &ExecutionControls, access: IoAccess) -> bool {
        if !controls.proc.contains(ProcControls::IO_BITMAPS) {
            return controls.proc.contains(ProcControls::UNCONDITIONAL_IO);
        }
        // An access that wraps around exits.
        access.port.checked_add(u16::from(access.size - 1)).is_none_or(|last| {
            (access.port..=last).any(|port| {
                let bitmap = self.physical_page(controls.io_bitmaps[usize::from(port >> 15)]);
                bitmap.byte(usize::from(port >> 3 & 0xfff)) >> (port & 7) & 1 != 0
            })
        })
    }

    /// RDMSR and WRMSR.
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_msr(&mut self, op: &Op, index: u32, write: bool) -> Exec {
        let Some(controls) = self.guest_controls() else { return Ok(()) };
        let exits = !controls.proc.contains(ProcControls::MSR_BITMAP)
            || match index {
                0..=0x1fff | 0xc000_0000..=0xc000_1fff => {
                    let high = if index >> 31 != 0 { 1024 } else { 0 };
                    let at = (index & 0x1fff) as usize / 8 + high + if write { 2048 } else { 0 };
                    self.physical_page(controls.msr_bitmap).byte(at) >> (index & 7) & 1 != 0
                }
                _ => true,
            };
        if exits {
            let reason = if write { ExitReason::Wrmsr } else { ExitReason::Rdmsr };
            return Err(self.vm_exit(VmExit::of(reason, op)));
        }
        Ok(())
    }

    /// The time stamp counter as the guest reads it (SDM Vol. 3C, 25.3).
    pub(crate) fn guest_tsc(&self) -> u64 {
        let tsc = self.tsc();
        let controls = self.guest_controls();
        let Some(c) = controls.filter(|c| c.proc.contains(ProcControls::TSC_OFFSETTING)) else {
            return tsc;
        };
        let scaled = if c.secondary.contains(SecondaryControls::TSC_SCALING) {
            ((u128::from(tsc) * u128::from(c.tsc_multiplier)) >> 48) as u64
        } else {
            tsc
        };
        scaled.wrapping_add(c.tsc_offset)
    }

    /// PAUSE: alone, or as one too many in a loop (SDM Vol. 3C, 25.1.3).
    ///
    /// # Errors
    ///
    /// The exit.
    pub(crate) fn intercept_pause(&mut self, op: &Op) -> Exec {
        self.intercept_if(op, ExitReason::Pause, ProcControls::PAUSE)?;
        if self.arch.cpl > 0 {
            return Ok(());
        }
        let now = self.tsc();
        let Some(guest) = &mut self.arch.vmx.guest else { return Ok(()) };
        let c = &guest.controls;
        if !c.secondary.contains(SecondaryControls::PAUSE_LOOP) {
            return Ok(());
        }
        let pauses = Pauses::with(guest.pauses, now, c.ple_gap);
        guest.pauses = Some(pauses);
        if now.wrapping_sub(pauses.first) > c.ple_window.into() {
            return Err(self.vm_exit(VmExit::of(ExitReason::Pause, op)));
        }
        Ok(())
    }

    /// Whether CR0 and CR4 are as VMX operation wants them.
    pub(crate) fn can_enter_vmx(&self) -> bool {
        self.arch.cr0.contains(CR0_FIXED) && self.arch.cr4.contains(CR4_FIXED)
    }

    /// Whether VMX operation allows a value of CR0 (SDM Vol. 3C, 23.8).
    pub(crate) fn vmx_allows_cr0(&self, value: Cr0) -> bool {
        let unrestricted = self.guest_controls().is_some_and(ExecutionControls::unrestricted);
        let fixed = if unrestricted { Cr0::NE } else { CR0_FIXED };
        !self.in_vmx() || value.contains(fixed)
    }

    /// Whether VMX operation allows a value of CR4.
    pub(crate) fn vmx_allows_cr4(&self, value: Cr4) -> bool {
        !self.in_vmx() || value.contains(CR4_FIXED)
    }

    /// Linear address of a memory operand, without any check.
    pub(crate) fn operand_address(&self, op: &Op) -> u64 {
        let offset = self.effective(op);
        if self.run.mode.is_64() && op.special & crate::op::MEM_SEGMENT == 0 {
            offset
        } else {
            self.system_linear(self.arch.segs[usize::from(op.seg & 7)].base.wrapping_add(offset))
        }
    }
}
