//! FCOM, FUCOM, FICOM, FCOMI, FUCOMI, FTST and FXAM.

use cloister_float::{self as float, Class, Comparison, F80, Format, Operand, Relation};
use cloister_x86::regs::Rflags;
use iced_x86::{Instruction, MemorySize};

use super::report::{begin, finish, finish_quiet, underflow};
use crate::cpu::Cpu;
use crate::exec::table::{always, rewrite, rows};
use crate::exit::Exec;
use crate::op::{Handler, NO_MEMORY, Op};
use crate::state::x87::status;

/// [`Op::extra`]: how many registers are popped.
const POPS: u32 = 3;
/// [`Op::extra`]: only a signalling NaN is invalid.
const QUIET: u32 = 4;

rows! {
    Fcom | Ficom => rewrite(|i, _, op| form(i, op, 0)),
    Fcomp | Ficomp => rewrite(|i, _, op| form(i, op, 1)),
    Fcompp => rewrite(|i, _, op| form(i, Op { src: 1, ..op }, 2)),
    Fucom => rewrite(|i, _, op| form(i, op, QUIET)),
    Fucomp => rewrite(|i, _, op| form(i, op, QUIET | 1)),
    Fucompp => rewrite(|i, _, op| form(i, Op { src: 1, ..op }, QUIET | 2)),
    Fcomi => rewrite(|_, _, op| Some(Op { run: to_flags, extra: 0, ..op })),
    Fcomip => rewrite(|_, _, op| Some(Op { run: to_flags, extra: 1, ..op })),
    Fucomi => rewrite(|_, _, op| Some(Op { run: to_flags, extra: QUIET, ..op })),
    Fucomip => rewrite(|_, _, op| Some(Op { run: to_flags, extra: QUIET | 1, ..op })),
    Ftst => always(ftst),
    Fxam => always(fxam),
}

fn form(instruction: &Instruction, op: Op, extra: u32) -> Option<Op> {
    let run = match instruction.memory_size() {
        _ if op.mem_operand == NO_MEMORY => registers as Handler,
        MemorySize::Float32 => float_memory::<u32>,
        MemorySize::Float64 => float_memory::<u64>,
        MemorySize::Int16 => integer_memory_16,
        _ => integer_memory_32,
    };
    Some(Op { run, extra, ..op })
}

fn comparison(op: &Op) -> Comparison {
    if op.extra & QUIET != 0 { Comparison::Quiet } else { Comparison::Signaling }
}

/// C3, C2 and C0 (SDM Vol. 2, FCOM).
fn conditions(relation: Relation) -> u16 {
    match relation {
        Relation::Greater => 0,
        Relation::Less => status::C0,
        Relation::Equal => status::C3,
        Relation::Unordered => status::C3 | status::C2 | status::C0,
    }
}

const COMPARED: u16 = status::C3 | status::C2 | status::C0;

fn pop_as_asked(cpu: &mut Cpu, op: &Op) {
    for _ in 0..op.extra & POPS {
        cpu.arch.fpu.pop();
    }
}

/// Compares ST(0) with `source`, `None` for an empty register.
fn compare(cpu: &mut Cpu, op: &Op, source: Option<Operand>) -> Exec {
    // The condition codes tell the relation even if an unmasked exception keeps the stack as it is.
    let Some(source) = source.filter(|_| !cpu.arch.fpu.is_empty(0)) else {
        let masked = underflow(cpu, op);
        cpu.arch.fpu.set_conditions(COMPARED, COMPARED);
        if masked {
            pop_as_asked(cpu, op);
        }
        return Ok(());
    };
    let mut env = cpu.arch.fpu.env();
    let st0 = cpu.arch.fpu.st(0).unpack();
    let relation = float::compare_operands(&mut env, st0, source, comparison(op));
    let pops = finish(cpu, op, &env);
    cpu.arch.fpu.set_conditions(COMPARED, conditions(relation));
    if pops {
        pop_as_asked(cpu, op);
    }
    Ok(())
}

fn source(cpu: &Cpu, i: u8) -> Option<Operand> {
    (!cpu.arch.fpu.is_empty(i)).then(|| cpu.arch.fpu.st(i).unpack())
}

extern "C" fn registers(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = source(cpu, op.src);
    compare(cpu, op, source)
}

extern "C" fn float_memory<T: Format + crate::mem::Plain>(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source: T = cpu.load_operand(op)?;
    compare(cpu, op, Some(source.unpack()))
}

extern "C" fn integer_memory_16(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = cpu.load_operand::<u16>(op)? as i16;
    compare(cpu, op, Some(Operand::from_i64(source.into())))
}

extern "C" fn integer_memory_32(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let source = cpu.load_operand::<u32>(op)? as i32;
    compare(cpu, op, Some(Operand::from_i64(source.into())))
}

extern "C" fn ftst(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    compare(cpu, op, Some(F80::ZERO.unpack()))
}

/// FCOMI and its kin: the relation goes to ZF, PF and CF; OF, SF and AF are cleared. C1, which the
/// manual clears, keeps its value unless the stack underflows.
extern "C" fn to_flags(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    let c1 = cpu.arch.fpu.status & status::C1;
    let (relation, pops) = if let (Some(a), Some(b)) = (source(cpu, 0), source(cpu, op.src)) {
        let mut env = cpu.arch.fpu.env();
        let relation = float::compare_operands(&mut env, a, b, comparison(op));
        let pops = finish(cpu, op, &env);
        cpu.arch.fpu.status |= c1;
        (relation, pops)
    } else {
        (Relation::Unordered, underflow(cpu, op))
    };
    let (zf, pf, cf) = (Rflags::ZF.bits(), Rflags::PF.bits(), Rflags::CF.bits());
    cpu.arch.flags.set_bits(match relation {
        Relation::Greater => 0,
        Relation::Less => cf,
        Relation::Equal => zf,
        Relation::Unordered => zf | pf | cf,
    });
    if pops {
        pop_as_asked(cpu, op);
    }
    Ok(())
}

extern "C" fn fxam(cpu: &mut Cpu, op: &Op) -> Exec {
    begin(cpu)?;
    finish_quiet(cpu, op);
    let value = cpu.arch.fpu.st(0);
    let operand = value.unpack();
    let class = if cpu.arch.fpu.is_empty(0) {
        status::C3 | status::C0
    } else {
        match operand.class {
            Class::Unsupported => 0,
            Class::QuietNan | Class::SignalingNan => status::C0,
            Class::Finite if operand.denormal => status::C3 | status::C2,
            Class::Finite => status::C2,
            Class::Infinity => status::C2 | status::C0,
            Class::Zero => status::C3,
        }
    };
    let sign = if value.sign() { status::C1 } else { 0 };
    cpu.arch.fpu.set_conditions(status::CONDITIONS, class | sign);
    Ok(())
}
