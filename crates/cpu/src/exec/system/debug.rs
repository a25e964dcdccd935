//! MOV to and from debug registers (SDM Vol. 3B, 17.2).

use cloister_x86::regs::Cr4;
use cloister_x86::{Exception, Vector};
use iced_x86::Register;

use crate::cpu::Cpu;
use crate::event::debug::DR7_GD;
use crate::exit::Exec;
use crate::op::{Handler, Op};

/// DR6.BD: an access to a debug register while DR7.GD was set.
const DR6_BD: u64 = 1 << 13;
/// DR6 bits that read as one (RTM, bit 16, among them: no RTM).
const DR6_ONES: u64 = 0xffff_0ff0;
/// DR6 bits that can be written: B0 to B3, BD, BS, BT.
const DR6_WRITABLE: u64 = 0xe00f;

/// The handler of MOV to or from a debug register.
pub(super) fn mov(to: Register) -> Handler {
    if to.is_dr() { mov_to } else { mov_from }
}

/// Checks an access to debug register `number`, by way of a general-purpose one, and returns the
/// register it names.
fn access(cpu: &mut Cpu, op: &Op, number: u8, gpr: u8, from: bool) -> Exec<u8> {
    if number > 7 {
        return Err(cpu.ud());
    }
    // The exit comes before faults by CR4.DE and by privilege (SDM Vol. 3C, 25.1.3).
    cpu.intercept_dr(op, number, gpr, from)?;
    let number = match number {
        4 | 5 if cpu.arch.cr4.contains(Cr4::DE) => return Err(cpu.ud()),
        4 | 5 => number + 2,
        _ => number,
    };
    cpu.require_cpl0()?;
    if cpu.arch.dr7 & DR7_GD != 0 {
        let fault = Exception { vector: Vector::Db, error_code: 0, address: DR6_BD };
        return Err(cpu.raise(fault));
    }
    Ok(number)
}

extern "C" fn mov_to(cpu: &mut Cpu, op: &Op) -> Exec {
    let number = access(cpu, op, op.dst, op.src, false)?;
    let value = cpu.reg::<u64>(op.src, false);
    let value = if cpu.run.mode.is_64() { value } else { value & 0xffff_ffff };
    match number {
        0..4 => {
            cpu.arch.dr[usize::from(number)] = value;
            cpu.arm_breakpoints();
        }
        _ if value >> 32 != 0 => return Err(cpu.gp(0)),
        6 => cpu.arch.dr6 = value & DR6_WRITABLE | DR6_ONES,
        _ => cpu.write_dr7(value),
    }
    Ok(())
}

extern "C" fn mov_from(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = match access(cpu, op, op.src, op.dst, true)? {
        number @ 0..4 => cpu.arch.dr[usize::from(number)],
        6 => cpu.arch.dr6,
        _ => cpu.arch.dr7,
    };
    let value = if cpu.run.mode.is_64() { value } else { value & 0xffff_ffff };
    cpu.set_dst(op, value);
    Ok(())
}
