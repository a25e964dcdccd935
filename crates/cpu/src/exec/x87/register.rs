//! FXCH, FCMOVcc, FFREE, FINCSTP, FDECSTP and FNOP.

use cloister_float::F80;

use super::report::{begin, finish_quiet, underflow};
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::{Op, handler};

rows! {
    Fxch => always(fxch),
    Fcmovb => always(handler!(|cpu, op| fcmov(cpu, op, cpu.arch.flags.cf()))),
    Fcmove => always(handler!(|cpu, op| fcmov(cpu, op, cpu.arch.flags.zf()))),
    Fcmovbe => always(handler!(|cpu, op| fcmov(cpu, op, cpu.arch.flags.cf() || cpu.arch.flags.zf()))),
    Fcmovu => always(handler!(|cpu, op| fcmov(cpu, op, cpu.arch.flags.pf()))),
    Fcmovnb => always(handler!(|cpu, op| fcmov(cpu, op, !cpu.arch.flags.cf()))),
    Fcmovne => always(handler!(|cpu, op| fcmov(cpu, op, !cpu.arch.flags.zf()))),
    Fcmovnbe => always(handler!(|cpu, op| fcmov(cpu, op, !(cpu.arch.flags.cf() || cpu.arch.flags.zf())))),
    Fcmovnu => always(handler!(|cpu, op| fcmov(cpu, op, !cpu.arch.flags.pf()))),
    Ffree => always(ffree),
    Ffreep => always(ffreep),
    Fincstp => always(fincstp),
    Fdecstp => always(fdecstp),
    // The 8087's and 80287's own controls do nothing on later processors.
    Fnop | Fneni | Fndisi | Fnsetpm => always(fnop),
}

extern "C" fn fxch(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let i = op.src;
    if cpu.arch.fpu.is_empty(0) || cpu.arch.fpu.is_empty(i) {
        if !underflow(cpu, op) {
            return Ok(());
        }
        for i in [0, i] {
            if cpu.arch.fpu.is_empty(i) {
                cpu.arch.fpu.set_st(i, F80::INDEFINITE);
            }
        }
    } else {
        finish_quiet(cpu, op);
    }
    let (a, b) = (cpu.arch.fpu.st(0), cpu.arch.fpu.st(i));
    cpu.arch.fpu.set_st(0, b);
    cpu.arch.fpu.set_st(i, a);
    Ok(())
}

fn fcmov(cpu: &mut Cpu, op: &Op, condition: bool) -> Exec {
    begin(cpu)?;
    if cpu.arch.fpu.is_empty(0) || cpu.arch.fpu.is_empty(op.src) {
        // Whatever the condition.
        if underflow(cpu, op) {
            cpu.arch.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    // C1 keeps its value unless the stack underflows.
    cpu.arch.fpu.fip = cpu.op_rip(op);
    if condition {
        let value = cpu.arch.fpu.st(op.src);
        cpu.arch.fpu.set_st(0, value);
    }
    Ok(())
}

extern "C" fn ffree(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    finish_quiet(cpu, op);
    cpu.arch.fpu.free(op.dst);
    Ok(())
}

/// FFREEP (DF C0+i), undocumented: FFREE, then a pop.
extern "C" fn ffreep(cpu: &mut Cpu, op: &Op) -> Exec {
    ffree(cpu, op)?;
    cpu.arch.fpu.pop();
    Ok(())
}

extern "C" fn fnop(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    cpu.arch.fpu.fip = cpu.op_rip(op);
    Ok(())
}

extern "C" fn fincstp(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    finish_quiet(cpu, op);
    cpu.arch.fpu.top = cpu.arch.fpu.top.wrapping_add(1) & 7;
    Ok(())
}

extern "C" fn fdecstp(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    finish_quiet(cpu, op);
    cpu.arch.fpu.top = cpu.arch.fpu.top.wrapping_sub(1) & 7;
    Ok(())
}
