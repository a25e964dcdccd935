//! ENCLS (SDM Vol. 2A, ENCLS).

use cloister_sgx::{EnclsRegs, LeafOutcome, encls};
use cloister_x86::regs::{Cr0, Rflags};

use super::port::Port;
use crate::exit::Exit;
use crate::op::Op;
use crate::segment::seg;
use crate::state::{Cpu, Exec};

pub(super) const RAX: usize = 0;
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
        || !cpu.features.sgx
        || cpu.cpl > 0
    {
        return Err(cpu.ud());
    }
    let leaf = cpu.gpr[RAX] as u32;
    // SDM Vol. 3C, 25.1.3: bit 63 stands for all leaves from 63 on.
    if cpu.encls_exiting >> leaf.min(63) & 1 != 0 {
        return Err(cpu.exit_with(Exit::Encls { leaf }));
    }
    let ds = cpu.segs[seg::DS].rights;
    let mode64 = cpu.mode.is_64();
    if !cpu.cr0.contains(Cr0::PG) || (!mode64 && !ds.is_code() && ds.bit_ec()) {
        return Err(cpu.gp(0));
    }
    let Some(platform) = cpu.shared.platform.clone() else {
        return Err(cpu.gp(0));
    };
    complete(cpu, |cpu, regs| {
        let mut port = Port::new(cpu);
        let outcome = encls::execute(&platform, &mut port, regs);
        port.finish(outcome)
    })
}

/// Executes a leaf of ENCLS or ENCLV with the registers that it takes, and gives back those that
/// it returns.
pub(super) fn complete(
    cpu: &mut Cpu,
    execute: impl FnOnce(&mut Cpu, &EnclsRegs) -> Exec<LeafOutcome>,
) -> Exec {
    let mode64 = cpu.mode.is_64();
    let operand = |value: u64| if mode64 { value } else { value & 0xffff_ffff };
    let regs = EnclsRegs {
        eax: cpu.gpr[RAX] as u32,
        rbx: operand(cpu.gpr[RBX]),
        rcx: operand(cpu.gpr[RCX]),
        rdx: operand(cpu.gpr[RDX]),
        mode64,
    };
    let outcome = execute(cpu, &regs)?;
    let (mut rax, mut rbx, mut rflags) = (cpu.gpr[RAX], cpu.gpr[RBX], cpu.flags.bits());
    outcome.apply(&mut rax, &mut rbx, &mut rflags);
    cpu.gpr[RAX] = rax;
    cpu.gpr[RBX] = rbx;
    cpu.flags.set_bits(rflags);
    Ok(())
}
