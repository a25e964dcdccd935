//! ENCLS (SDM Vol. 2A, ENCLS).

use cloister_sgx::{EnclsRegs, LeafOutcome, SgxFeatures, encls};
use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::seg;
use cloister_x86::vmx::{ExitReason, SecondaryControls};

use super::port::Port;
use crate::cpu::Cpu;
use crate::exit::{Exec, Exit};
use crate::op::Op;

/// ENCLS: the checks before the leaf, in the order of the pseudo-code, then the leaf.
///
/// IA32_FEATURE_CONTROL belongs to the owner: while it does not enable SGX, every leaf is in the
/// owner's exiting bitmap. The guest's own hypervisor comes first.
pub(super) extern "C" fn encls(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.arch.cr0.contains(Cr0::PE)
        || cpu.arch.system_flags.contains(Rflags::VM)
        || !cpu.ctl.features.has_sgx(SgxFeatures::SGX1)
        || cpu.arch.cpl > 0
    {
        return Err(cpu.ud());
    }
    let leaf = cpu.arch.gpr[Gpr::Rax] as u32;
    cpu.intercept(op, ExitReason::Encls, |controls| {
        controls.secondary.contains(SecondaryControls::ENCLS)
            && is_in_bitmap(controls.encls_exiting, leaf)
    })?;
    if is_in_bitmap(cpu.ctl.encls_exiting, leaf) {
        return Err(cpu.exit_with(Exit::Encls { leaf }));
    }
    if !cpu.reaches_operands() {
        return Err(cpu.gp(0));
    }
    let Some(platform) = cpu.package.platform.clone() else {
        return Err(cpu.gp(0));
    };
    let regs = cpu.leaf_registers();
    let mut port = Port::new(cpu);
    match encls::execute(&platform, &mut port, &regs) {
        Ok(outcome) => {
            port.written();
            cpu.apply_leaf(&outcome);
            Ok(())
        }
        Err(stop) => Err(port.stop(stop)),
    }
}

/// Whether an exiting bitmap has a leaf; bit 63 stands for all from 63 on (SDM Vol. 3C, 25.1.3).
pub(super) fn is_in_bitmap(bitmap: u64, leaf: u32) -> bool {
    bitmap >> leaf.min(63) & 1 != 0
}

impl Cpu {
    /// The registers of an ENCLS or ENCLV leaf.
    #[must_use]
    pub fn leaf_registers(&self) -> EnclsRegs {
        let mode64 = self.run.mode.is_64();
        let operand = |value: u64| if mode64 { value } else { value & 0xffff_ffff };
        EnclsRegs {
            eax: self.arch.gpr[Gpr::Rax] as u32,
            rbx: operand(self.arch.gpr[Gpr::Rbx]),
            rcx: operand(self.arch.gpr[Gpr::Rcx]),
            rdx: operand(self.arch.gpr[Gpr::Rdx]),
            mode64,
        }
    }

    /// What ENCLS and ENCLV check last: paging is on, and outside 64-bit mode DS does not expand
    /// down. Otherwise they are #GP(0).
    pub(super) fn reaches_operands(&self) -> bool {
        let ds = self.arch.segs[seg::DS].rights;
        let expands_down = !ds.is_code() && ds.bit_ec();
        self.arch.cr0.contains(Cr0::PG) && (self.run.mode.is_64() || !expands_down)
    }

    /// Changes the registers as an ENCLS leaf that completed does. RIP stays.
    pub fn apply_leaf(&mut self, outcome: &LeafOutcome) {
        let (mut rax, mut rbx, mut rflags) =
            (self.arch.gpr[Gpr::Rax], self.arch.gpr[Gpr::Rbx], self.arch.flags.bits());
        outcome.apply(&mut rax, &mut rbx, &mut rflags);
        self.arch.gpr[Gpr::Rax] = rax;
        self.arch.gpr[Gpr::Rbx] = rbx;
        self.arch.flags.set_bits(rflags);
    }
}
