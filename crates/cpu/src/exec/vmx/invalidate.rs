//! INVEPT and INVVPID. What they name is dropped as a whole: more than asked for, as the SDM allows
//! (Vol. 3C, 28.4.3.2).

use cloister_x86::addr::is_canonical;
use cloister_x86::vmx::{ExitReason, VmInstructionError};

use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::mem::ept::is_same_context;
use crate::mem::tlb::AccessKind;
use crate::op::Op;
use crate::vmx::controls::is_eptp;
use crate::vmx::info;

rows! {
    Invept => always(invept),
    Invvpid => always(invvpid),
}

/// The type, in a register, and the descriptor of 16 bytes in memory.
fn operands(cpu: &mut Cpu, op: &Op) -> Exec<(u64, u64, u64)> {
    let kind = cpu.dst::<u64>(op);
    let kind = if cpu.run.mode.is_64() { kind } else { kind & 0xffff_ffff };
    let la = cpu.linear(op, 16, AccessKind::Read)?;
    let low = cpu.load::<u64>(la)?;
    let high = cpu.load::<u64>(cpu.system_linear(la.wrapping_add(8)))?;
    Ok((kind, low, high))
}

fn finish(cpu: &mut Cpu, valid: bool) {
    if valid {
        cpu.vm_succeed();
    } else {
        cpu.vm_fail(VmInstructionError::InvalidInvalidation);
    }
}

extern "C" fn invept(cpu: &mut Cpu, op: &Op) -> Exec {
    const SINGLE_CONTEXT: u64 = 1;
    const ALL_CONTEXT: u64 = 2;
    cpu.check_vmx(op, ExitReason::Invept, info::operand_and_register(op, op.dst))?;
    let (kind, eptp, reserved) = operands(cpu, op)?;
    let valid = match kind {
        SINGLE_CONTEXT => is_eptp(cpu, eptp) && reserved == 0,
        ALL_CONTEXT => reserved == 0,
        _ => false,
    };
    if valid && kind == SINGLE_CONTEXT {
        cpu.run.tlb.drop_worlds(|key| key.eptp != 0 && is_same_context(key.eptp, eptp));
        cpu.run.guest_pages.drop_context(eptp);
    } else if valid {
        cpu.run.tlb.drop_worlds(|key| key.eptp != 0);
        cpu.run.guest_pages.drop_all();
    }
    finish(cpu, valid);
    Ok(())
}

extern "C" fn invvpid(cpu: &mut Cpu, op: &Op) -> Exec {
    const INDIVIDUAL_ADDRESS: u64 = 0;
    const SINGLE_CONTEXT: u64 = 1;
    const ALL_CONTEXT: u64 = 2;
    const SINGLE_CONTEXT_RETAINING_GLOBALS: u64 = 3;
    cpu.check_vmx(op, ExitReason::Invvpid, info::operand_and_register(op, op.dst))?;
    let (kind, vpid, linear) = operands(cpu, op)?;
    let named = vpid != 0 && vpid >> 16 == 0;
    let valid = match kind {
        INDIVIDUAL_ADDRESS => named && is_canonical(linear),
        SINGLE_CONTEXT | SINGLE_CONTEXT_RETAINING_GLOBALS => named,
        ALL_CONTEXT => vpid >> 16 == 0,
        _ => false,
    };
    if valid {
        cpu.run.tlb.drop_worlds(|key| {
            key.vpid != 0 && (kind == ALL_CONTEXT || u64::from(key.vpid) == vpid)
        });
    }
    finish(cpu, valid);
    Ok(())
}
