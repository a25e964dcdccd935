//! FLDCW, FNSTCW, FNSTSW, FNCLEX, FNINIT and FWAIT.

use cloister_x86::regs::Cr0;
use cloister_x86::{Exception, Vector};

use super::report::{begin, begin_no_wait, pending};
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::{NO_MEMORY, Op};
use crate::state::x87::status;

rows! {
    Fldcw => always(fldcw),
    Fnstcw => always(fnstcw),
    Fnstsw => always(fnstsw),
    Fnclex => always(fnclex),
    Fninit => always(fninit),
    Wait => always(fwait),
}

extern "C" fn fldcw(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let value: u16 = cpu.load_operand(op)?;
    cpu.arch.fpu.set_control_word(value);
    Ok(())
}

extern "C" fn fnstcw(cpu: &mut Cpu, op: &Op) -> Exec {
    begin_no_wait(cpu)?;
    let value = cpu.arch.fpu.control;
    cpu.store_operand(op, value)
}

extern "C" fn fnstsw(cpu: &mut Cpu, op: &Op) -> Exec {
    begin_no_wait(cpu)?;
    let value = cpu.arch.fpu.status_word();
    if op.mem_operand == NO_MEMORY {
        cpu.set_reg(0, false, value);
        Ok(())
    } else {
        cpu.store_operand(op, value)
    }
}

extern "C" fn fnclex(cpu: &mut Cpu, _op: &Op) -> Exec {
    begin_no_wait(cpu)?;
    cpu.arch.fpu.status &= !(status::EXCEPTIONS | status::SF | status::ES | status::B);
    Ok(())
}

extern "C" fn fninit(cpu: &mut Cpu, _op: &Op) -> Exec {
    begin_no_wait(cpu)?;
    cpu.arch.fpu.init();
    Ok(())
}

/// FWAIT heeds CR0.TS only together with CR0.MP (SDM Vol. 3A, 2.5).
extern "C" fn fwait(cpu: &mut Cpu, _op: &Op) -> Exec {
    if cpu.arch.cr0.contains(Cr0::MP | Cr0::TS) {
        return Err(cpu.raise(Exception::new(Vector::Nm)));
    }
    pending(cpu)
}
