//! ENCLS (SDM Vol. 2A, ENCLS).

use cloister_sgx::{EnclsRegs, LeafOutcome, SgxFeatures, encls};
use cloister_x86::regs::{Cr0, Rflags};

use super::port::Port;
use crate::exit::Exit;
use crate::op::Op;
use crate::segment::seg;
use crate::state::{Cpu, Exec};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;

/// ENCLS: the checks before the leaf, in the order of the pseudo-code, then the leaf.
///
/// IA32_FEATURE_CONTROL belongs to the owner: while it does not enable SGX, every leaf is in the
/// exiting bitmap, whose check comes first.
pub(super) fn encls(cpu: &mut Cpu, _op: &Op) -> Exec {
    if !cpu.cr0.contains(Cr0::PE)
        || cpu.system_flags.contains(Rflags::VM)
        || !cpu.features.has_sgx(SgxFeatures::SGX1)
        || cpu.cpl > 0
    {
        return Err(cpu.ud());
    }
    let leaf = cpu.gpr[RAX] as u32;
    // SDM Vol. 3C, 25.1.3: bit 63 stands for all leaves from 63 on.
    if cpu.encls_exiting >> leaf.min(63) & 1 != 0 {
        return Err(cpu.exit_with(Exit::Encls { leaf }));
    }
    if !cpu.reaches_operands() {
        return Err(cpu.gp(0));
    }
    let Some(platform) = cpu.shared.platform.clone() else {
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

impl Cpu {
    /// The registers of an ENCLS or ENCLV leaf.
    #[must_use]
    pub fn leaf_registers(&self) -> EnclsRegs {
        let mode64 = self.mode.is_64();
        let operand = |value: u64| if mode64 { value } else { value & 0xffff_ffff };
        EnclsRegs {
            eax: self.gpr[RAX] as u32,
            rbx: operand(self.gpr[RBX]),
            rcx: operand(self.gpr[RCX]),
            rdx: operand(self.gpr[RDX]),
            mode64,
        }
    }

    /// What ENCLS and ENCLV check last: paging is on, and outside 64-bit mode DS does not expand
    /// down. Otherwise they are #GP(0).
    pub(super) fn reaches_operands(&self) -> bool {
        let ds = self.segs[seg::DS].rights;
        let expands_down = !ds.is_code() && ds.bit_ec();
        self.cr0.contains(Cr0::PG) && (self.mode.is_64() || !expands_down)
    }

    /// Changes the registers as an ENCLS leaf that completed does. RIP stays.
    pub fn apply_leaf(&mut self, outcome: &LeafOutcome) {
        let (mut rax, mut rbx, mut rflags) = (self.gpr[RAX], self.gpr[RBX], self.flags.bits());
        outcome.apply(&mut rax, &mut rbx, &mut rflags);
        self.gpr[RAX] = rax;
        self.gpr[RBX] = rbx;
        self.flags.set_bits(rflags);
    }
}
