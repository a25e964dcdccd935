//! FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X and FYL2XP1.

use cloister_float::{self as float, Env, F80};

use super::arithmetic::{on_st0, two_results_fault};
use super::report::{begin, finish, finish_quiet, underflow};
use crate::cpu::Cpu;
use crate::exec::table::{always, rows};
use crate::exit::Exec;
use crate::op::{Op, handler};
use crate::state::x87::status;

rows! {
    F2xm1 => always(f2xm1),
    Fyl2x => always(handler!(|cpu, op| two_operands(cpu, op, float::fyl2x))),
    Fyl2xp1 => always(handler!(|cpu, op| two_operands(cpu, op, float::fyl2xp1))),
    Fpatan => always(handler!(|cpu, op| two_operands(cpu, op, float::fpatan))),
    Fptan => always(handler!(|cpu, op| two_results(cpu, op, float::fptan))),
    Fsincos => always(handler!(|cpu, op| two_results(cpu, op, float::fsincos))),
    Fsin => always(handler!(|cpu, op| one_result(cpu, op, float::fsin))),
    Fcos => always(handler!(|cpu, op| one_result(cpu, op, float::fcos))),
}

extern "C" fn f2xm1(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    on_st0(cpu, op, float::f2xm1)
}

/// ST(1) = f(ST(1), ST(0)), then ST(0) is popped.
fn two_operands(cpu: &mut Cpu, op: &Op, f: fn(&mut Env, F80, F80) -> F80) -> Exec {
    begin(cpu)?;
    if cpu.arch.fpu.is_empty(0) || cpu.arch.fpu.is_empty(1) {
        if underflow(cpu, op) {
            cpu.arch.fpu.set_st(1, F80::INDEFINITE);
            cpu.arch.fpu.pop();
        }
        return Ok(());
    }
    let mut env = cpu.arch.fpu.env();
    let result = f(&mut env, cpu.arch.fpu.st(1), cpu.arch.fpu.st(0));
    if finish(cpu, op, &env) {
        cpu.arch.fpu.set_st(1, result);
        cpu.arch.fpu.pop();
    }
    Ok(())
}

/// C2 set and nothing else: the argument is out of range.
fn out_of_range(cpu: &mut Cpu, op: &Op) -> Exec {
    finish_quiet(cpu, op);
    cpu.arch.fpu.set_conditions(status::C2, status::C2);
    Ok(())
}

fn one_result(cpu: &mut Cpu, op: &Op, f: fn(&mut Env, F80) -> Option<F80>) -> Exec {
    begin(cpu)?;
    cpu.arch.fpu.set_conditions(status::C2, 0);
    if cpu.arch.fpu.is_empty(0) {
        if underflow(cpu, op) {
            cpu.arch.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = cpu.arch.fpu.env();
    let Some(result) = f(&mut env, cpu.arch.fpu.st(0)) else {
        return out_of_range(cpu, op);
    };
    if finish(cpu, op, &env) {
        cpu.arch.fpu.set_st(0, result);
    }
    Ok(())
}

fn two_results(cpu: &mut Cpu, op: &Op, f: fn(&mut Env, F80) -> Option<(F80, F80)>) -> Exec {
    begin(cpu)?;
    cpu.arch.fpu.set_conditions(status::C2, 0);
    if let Some(done) = two_results_fault(cpu, op) {
        return done;
    }
    let mut env = cpu.arch.fpu.env();
    let Some((replaced, pushed)) = f(&mut env, cpu.arch.fpu.st(0)) else {
        return out_of_range(cpu, op);
    };
    if finish(cpu, op, &env) {
        cpu.arch.fpu.set_st(0, replaced);
        cpu.arch.fpu.push(pushed);
    }
    Ok(())
}
