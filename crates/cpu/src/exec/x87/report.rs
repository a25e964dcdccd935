//! How x87 instructions begin and end: device-not-available and pending exceptions before, flags,
//! condition code C1 and the last-instruction pointers after (SDM Vol. 1, 8.4 to 8.7).

use cloister_float::{Env, Flags};
use cloister_x86::regs::Cr0;
use cloister_x86::{Exception, Vector};

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::op::{NO_MEMORY, Op};
use crate::state::x87::status;

/// What a waiting instruction checks first: #NM if CR0.EM or CR0.TS is set, then #MF if an
/// unmasked exception is pending.
///
/// With CR0.NE clear a PC would raise interrupt 13 through its interrupt controller; this
/// processor has no such pin and goes on, as one does whose IGNNE# is asserted.
#[inline(always)]
pub(super) fn begin(cpu: &mut Cpu) -> Exec {
    if cpu.arch.cr0.intersects(Cr0::EM | Cr0::TS) || cpu.arch.fpu.status & status::ES != 0 {
        begin_slow(cpu)?;
    }
    Ok(())
}

#[cold]
fn begin_slow(cpu: &mut Cpu) -> Exec {
    begin_no_wait(cpu)?;
    pending(cpu)
}

/// What a non-waiting instruction (FNINIT, FNSTSW, ...) checks: #NM alone.
pub(super) fn begin_no_wait(cpu: &mut Cpu) -> Exec {
    if cpu.arch.cr0.intersects(Cr0::EM | Cr0::TS) {
        return Err(cpu.raise(Exception::new(Vector::Nm)));
    }
    Ok(())
}

/// #MF if an unmasked exception is pending.
pub(super) fn pending(cpu: &mut Cpu) -> Exec {
    if cpu.arch.fpu.status & status::ES != 0 && cpu.arch.cr0.contains(Cr0::NE) {
        return Err(cpu.raise(Exception::new(Vector::Mf)));
    }
    Ok(())
}

/// Ends an instruction that raised no exception: C1 is cleared.
#[inline(always)]
pub(super) fn finish_quiet(cpu: &mut Cpu, op: &Op) {
    cpu.arch.fpu.status &= !status::C1;
    cpu.arch.fpu.fip = cpu.op_rip(op);
}

/// Ends an instruction: flags and C1 from its environment, pointers. `true` if the result is to be
/// written to a register, which unmasked IE, DE and ZE forbid (SDM Vol. 1, 8.5).
#[inline(always)]
pub(super) fn finish(cpu: &mut Cpu, op: &Op, env: &Env) -> bool {
    finish_quiet(cpu, op);
    if env.flags.is_empty() {
        return true;
    }
    cpu.arch.fpu.status |= u16::from(env.flags.bits());
    if env.pending.is_empty() {
        if env.rounded_up && env.flags.contains(Flags::PE) {
            cpu.arch.fpu.status |= status::C1;
        }
        return true;
    }
    finish_unmasked(cpu, op, env)
}

#[cold]
fn finish_unmasked(cpu: &mut Cpu, op: &Op, env: &Env) -> bool {
    cpu.arch.fpu.status |= status::ES | status::B;
    record_pointers(cpu, op);
    let delivered = !env.pending.intersects(Flags::PRE_COMPUTATION);
    if delivered && env.rounded_up && env.flags.contains(Flags::PE) {
        cpu.arch.fpu.status |= status::C1;
    }
    delivered
}

/// Ends an instruction that met an empty register. `true` if the exception is masked, so that the
/// indefinite is the result (SDM Vol. 1, 8.5.1.1).
#[cold]
pub(super) fn underflow(cpu: &mut Cpu, op: &Op) -> bool {
    finish_quiet(cpu, op);
    stack_fault(cpu, op)
}

/// Ends an instruction that would push onto a register that is not empty; as [`underflow`], with
/// C1 set.
#[cold]
pub(super) fn overflow(cpu: &mut Cpu, op: &Op) -> bool {
    finish_quiet(cpu, op);
    cpu.arch.fpu.status |= status::C1;
    stack_fault(cpu, op)
}

fn stack_fault(cpu: &mut Cpu, op: &Op) -> bool {
    cpu.arch.fpu.status |= status::IE | status::SF;
    let masked = cpu.arch.fpu.control & status::IE != 0;
    if !masked {
        cpu.arch.fpu.status |= status::ES | status::B;
        record_pointers(cpu, op);
    }
    masked
}

/// Opcode and data pointer of an instruction with an unmasked exception; only these are kept.
fn record_pointers(cpu: &mut Cpu, op: &Op) {
    if op.mem_operand != NO_MEMORY {
        let offset = cpu.effective(op);
        cpu.arch.fpu.fdp = if cpu.run.mode.is_64() { offset } else { offset & 0xffff_ffff };
    }
    let mut bytes = [0; 15];
    let length = usize::from(op.len).min(bytes.len());
    let address = cpu.linear_ip(cpu.op_rip(op));
    let mode = cpu.run.mmu_mode;
    if cpu.read_bytes(address, &mut bytes[..length], mode).is_err() {
        // Code that cannot be read as data: the opcode stays what it was.
        cpu.run.fault = None;
        cpu.run.exit = None;
        return;
    }
    // No prefix is in D8H to DFH.
    let escape = bytes.iter().position(|byte| byte & 0xf8 == 0xd8);
    if let Some(&[first, second]) = escape.and_then(|at| bytes.get(at..at + 2)) {
        cpu.arch.fpu.fop = u16::from(first & 7) << 8 | u16::from(second);
    }
}
