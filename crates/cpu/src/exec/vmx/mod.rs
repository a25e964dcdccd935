//! VMX instructions (SDM Vol. 3C, chapter 30).

mod access;
mod enter;
mod function;
mod invalidate;
mod operation;
mod pointer;

use cloister_x86::regs::Rflags;
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{ExitReason, VmInstructionError};

use crate::cpu::Cpu;
use crate::exec::table::Row;
use crate::exit::Exec;
use crate::flags::Flags;
use crate::op::Op;

/// The rows of VMX instructions, by family.
pub(super) const FAMILIES: &[&[Row]] =
    &[operation::ROWS, pointer::ROWS, access::ROWS, enter::ROWS, function::ROWS, invalidate::ROWS];

impl Cpu {
    /// #UD where no VMX instruction is valid: outside protected mode, and in compatibility mode.
    fn check_vmx_mode(&mut self) -> Exec {
        if self.run.mode.is_real() || (self.long_mode() && !self.run.mode.is_64()) {
            return Err(self.ud());
        }
        Ok(())
    }

    /// What the instructions but VMXON, VMCALL and VMFUNC check first: VMX operation, the mode, an exit in
    /// VMX non-root operation, CPL 0.
    fn check_vmx(&mut self, op: &Op, reason: ExitReason, information: u32) -> Exec {
        self.check_vmx_unless(op, reason, information, false)
    }

    /// As [`Cpu::check_vmx`], without an exit of what is `shadowed`.
    fn check_vmx_unless(
        &mut self,
        op: &Op,
        reason: ExitReason,
        information: u32,
        shadowed: bool,
    ) -> Exec {
        if !self.in_vmx() {
            return Err(self.ud());
        }
        self.check_vmx_mode()?;
        self.intercept_operand(op, reason, information, |_| !shadowed)?;
        self.require_cpl0()
    }

    /// VMsucceed (SDM Vol. 3C, 30.2).
    fn vm_succeed(&mut self) {
        self.arch.flags.set_bits(0);
    }

    /// VMfailInvalid.
    fn vm_fail_invalid(&mut self) {
        self.arch.flags.set_bits(Rflags::CF.bits());
    }

    /// VMfail: VMfailValid where there is a current VMCS for the error.
    fn vm_fail(&mut self, error: VmInstructionError) {
        match self.arch.vmx.current {
            Some(vmcs) => {
                self.arch.flags.set_bits(Rflags::ZF.bits());
                self.vmcs(vmcs).write(Field::INSTRUCTION_ERROR, (error as u32).into());
            }
            None => self.vm_fail_invalid(),
        }
    }
}

// The flags of `vm_succeed` and the others are all of the arithmetic flags.
const _: () = assert!(Flags::MASK & Rflags::ZF.bits() != 0 && Flags::MASK & Rflags::CF.bits() != 0);
