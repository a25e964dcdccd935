//! FADD, FSUB, FMUL, FDIV and their reversed, popping and integer forms; FSQRT, FABS, FCHS,
//! FRNDINT, FSCALE, FPREM, FPREM1, FXTRACT.

use cloister_float::{self as float, Env, F80, Format, Operand, RemainderKind};
use iced_x86::{Instruction, MemorySize};

use super::report::{begin, finish, overflow, underflow};
use crate::cpu::Cpu;
use crate::exec::table::{always, rewrite, rows};
use crate::exit::Exec;
use crate::mode::Mode;
use crate::op::{Handler, NO_MEMORY, Op};
use crate::state::x87::status;

/// [`Op::extra`]: ST(0) is popped at the end.
const POP: u32 = 1 << 8;

/// [`Op::extra`]: which operation it is.
const OPERATION: u32 = 7;

const ADD: u32 = 0;
const SUB: u32 = 1;
const SUBR: u32 = 2;
const MUL: u32 = 3;
const DIV: u32 = 4;
const DIVR: u32 = 5;

rows! {
    Fadd | Fiadd => rewrite(form::<ADD>),
    Faddp => rewrite(form::<{ ADD | POP }>),
    Fsub | Fisub => rewrite(form::<SUB>),
    Fsubp => rewrite(form::<{ SUB | POP }>),
    Fsubr | Fisubr => rewrite(form::<SUBR>),
    Fsubrp => rewrite(form::<{ SUBR | POP }>),
    Fmul | Fimul => rewrite(form::<MUL>),
    Fmulp => rewrite(form::<{ MUL | POP }>),
    Fdiv | Fidiv => rewrite(form::<DIV>),
    Fdivp => rewrite(form::<{ DIV | POP }>),
    Fdivr | Fidivr => rewrite(form::<DIVR>),
    Fdivrp => rewrite(form::<{ DIVR | POP }>),
    Fsqrt => always(fsqrt),
    Fabs => always(fabs),
    Fchs => always(fchs),
    Frndint => always(frndint),
    Fscale => always(fscale),
    Fprem => always(fprem),
    Fprem1 => always(fprem1),
    Fxtract => always(fxtract),
}

fn form<const EXTRA: u32>(instruction: &Instruction, _mode: Mode, op: Op) -> Option<Op> {
    let run = match instruction.memory_size() {
        _ if op.mem_operand == NO_MEMORY => registers as Handler,
        MemorySize::Float32 => float_memory::<u32>,
        MemorySize::Float64 => float_memory::<u64>,
        MemorySize::Int16 => integer_memory_16,
        _ => integer_memory_32,
    };
    Some(Op { run, extra: EXTRA, ..op })
}

fn compute(env: &mut Env, op: &Op, a: Operand, b: Operand) -> F80 {
    match op.extra & OPERATION {
        ADD => float::add_operands(env, a, b),
        SUB => float::sub_operands(env, a, b),
        SUBR => float::sub_operands(env, b, a),
        MUL => float::mul_operands(env, a, b),
        DIV => float::div_operands(env, a, b),
        _ => float::div_operands(env, b, a),
    }
}

extern "C" fn registers(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let pops = op.extra & POP != 0;
    if cpu.arch.fpu.is_empty(op.dst) || cpu.arch.fpu.is_empty(op.src) {
        if underflow(cpu, op) {
            cpu.arch.fpu.set_st(op.dst, F80::INDEFINITE);
            if pops {
                cpu.arch.fpu.pop();
            }
        }
        return Ok(());
    }
    let mut env = cpu.arch.fpu.env();
    let (a, b) = (cpu.arch.fpu.st(op.dst), cpu.arch.fpu.st(op.src));
    let result = compute(&mut env, op, a.unpack(), b.unpack());
    if finish(cpu, op, &env) {
        cpu.arch.fpu.set_st(op.dst, result);
        if pops {
            cpu.arch.fpu.pop();
        }
    }
    Ok(())
}

extern "C" fn float_memory<T: Format + crate::mem::Plain>(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source: T = cpu.load_operand(op)?;
    memory(cpu, op, source.unpack())
}

extern "C" fn integer_memory_16(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = cpu.load_operand::<u16>(op)? as i16;
    memory(cpu, op, Operand::from_i64(source.into()))
}

extern "C" fn integer_memory_32(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = cpu.load_operand::<u32>(op)? as i32;
    memory(cpu, op, Operand::from_i64(source.into()))
}

fn memory(cpu: &mut Cpu, op: &Op, source: Operand) -> Exec {
    on_st0(cpu, op, |env, st0| compute(env, op, st0.unpack(), source))
}

/// Replaces ST(0) by a function of it.
#[inline(always)]
pub(super) fn on_st0(cpu: &mut Cpu, op: &Op, f: impl FnOnce(&mut Env, F80) -> F80) -> Exec {
    if cpu.arch.fpu.is_empty(0) {
        if underflow(cpu, op) {
            cpu.arch.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = cpu.arch.fpu.env();
    let result = f(&mut env, cpu.arch.fpu.st(0));
    if finish(cpu, op, &env) {
        cpu.arch.fpu.set_st(0, result);
    }
    Ok(())
}

extern "C" fn fsqrt(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    on_st0(cpu, op, float::sqrt)
}

extern "C" fn frndint(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    on_st0(cpu, op, |env, st0| {
        let rounding = env.rounding;
        float::round_to_integral(env, st0, rounding, false)
    })
}

/// FABS and FCHS look at the sign alone: no NaN and no encoding is invalid for them.
extern "C" fn fabs(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    on_st0(cpu, op, |_, st0| F80::new(st0.sign_exp & 0x7fff, st0.mantissa))
}

extern "C" fn fchs(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    on_st0(cpu, op, |_, st0| st0.negate())
}

extern "C" fn fscale(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    if cpu.arch.fpu.is_empty(1) {
        if underflow(cpu, op) {
            cpu.arch.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let power = cpu.arch.fpu.st(1);
    on_st0(cpu, op, |env, st0| float::scale(env, st0, power))
}

extern "C" fn fprem(cpu: &mut Cpu, op: &Op) -> Exec {
    remainder(cpu, op, RemainderKind::Truncated)
}

extern "C" fn fprem1(cpu: &mut Cpu, op: &Op) -> Exec {
    remainder(cpu, op, RemainderKind::Nearest)
}

fn remainder(cpu: &mut Cpu, op: &Op, kind: RemainderKind) -> Exec {
    begin(cpu)?;
    cpu.arch.fpu.set_conditions(status::C2, 0);
    if cpu.arch.fpu.is_empty(0) || cpu.arch.fpu.is_empty(1) {
        if underflow(cpu, op) {
            cpu.arch.fpu.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let mut env = cpu.arch.fpu.env();
    let result = float::remainder(&mut env, cpu.arch.fpu.st(0), cpu.arch.fpu.st(1), kind);
    if !finish(cpu, op, &env) {
        return Ok(());
    }
    if let Some(quotient) = result.quotient {
        let bit = |n: u32, condition: u16| if quotient >> n & 1 != 0 { condition } else { 0 };
        let conditions = if result.partial {
            status::C2
        } else {
            bit(2, status::C0) | bit(1, status::C3) | bit(0, status::C1)
        };
        cpu.arch.fpu.set_conditions(status::CONDITIONS, conditions);
    }
    cpu.arch.fpu.set_st(0, result.value);
    Ok(())
}

extern "C" fn fxtract(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    if let Some(done) = two_results_fault(cpu, op) {
        return done;
    }
    let mut env = cpu.arch.fpu.env();
    let (exponent, significand) = float::extract(&mut env, cpu.arch.fpu.st(0));
    if finish(cpu, op, &env) {
        cpu.arch.fpu.set_st(0, exponent);
        cpu.arch.fpu.push(significand);
    }
    Ok(())
}

/// The stack faults of an instruction that replaces ST(0) and pushes a second result.
pub(super) fn two_results_fault(cpu: &mut Cpu, op: &Op) -> Option<Exec> {
    let masked = if cpu.arch.fpu.is_empty(0) {
        underflow(cpu, op)
    } else if !cpu.arch.fpu.is_empty(7) {
        overflow(cpu, op)
    } else {
        return None;
    };
    if masked {
        cpu.arch.fpu.set_st(0, F80::INDEFINITE);
        cpu.arch.fpu.push(F80::INDEFINITE);
    }
    Some(Ok(()))
}
