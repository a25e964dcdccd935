//! Conditions (SDM Vol. 1, appendix B), and the instructions that only read them: CMOVcc, SETcc.

use iced_x86::Instruction;

use crate::cpu::Cpu;
use crate::exec::table::{choose, rows};
use crate::exit::Exec;
use crate::flags::Flags;
use crate::mem::Int;
use crate::op::{Handler, NO_MEMORY, Op};

/// Picks an instance of a handler by condition: the last generic argument.
macro_rules! by_condition {
    ($code:expr, $handler:ident $([$($arg:tt),+])?) => {
        match $code {
            0 => $handler::<$($($arg,)+)? 0> as $crate::op::Handler,
            1 => $handler::<$($($arg,)+)? 1>,
            2 => $handler::<$($($arg,)+)? 2>,
            3 => $handler::<$($($arg,)+)? 3>,
            4 => $handler::<$($($arg,)+)? 4>,
            5 => $handler::<$($($arg,)+)? 5>,
            6 => $handler::<$($($arg,)+)? 6>,
            7 => $handler::<$($($arg,)+)? 7>,
            8 => $handler::<$($($arg,)+)? 8>,
            9 => $handler::<$($($arg,)+)? 9>,
            10 => $handler::<$($($arg,)+)? 10>,
            11 => $handler::<$($($arg,)+)? 11>,
            12 => $handler::<$($($arg,)+)? 12>,
            13 => $handler::<$($($arg,)+)? 13>,
            14 => $handler::<$($($arg,)+)? 14>,
            _ => $handler::<$($($arg,)+)? 15>,
        }
    };
}
pub(super) use by_condition;

/// The condition that an instruction tests, as the low four bits of its opcode encode it.
#[must_use]
pub(crate) fn code(instruction: &Instruction) -> u8 {
    // The decoder counts from 1: 0 stands for no condition.
    (instruction.condition_code() as u8).saturating_sub(1)
}

/// Whether condition `CODE` holds.
#[inline(always)]
#[must_use]
pub(crate) fn holds<const CODE: u8>(flags: &Flags) -> bool {
    let positive = match CODE >> 1 {
        0 => flags.of(),
        1 => flags.cf(),
        2 => flags.zf(),
        3 => flags.cf() | flags.zf(),
        4 => flags.sf(),
        5 => flags.pf(),
        6 => flags.sf() ^ flags.of(),
        _ => flags.zf() | (flags.sf() ^ flags.of()),
    };
    positive ^ (CODE & 1 != 0)
}

rows! {
    Cmova | Cmovae | Cmovb | Cmovbe | Cmove | Cmovg | Cmovge | Cmovl | Cmovle | Cmovne | Cmovno
    | Cmovnp | Cmovns | Cmovo | Cmovp | Cmovs => choose(cmov_form),
    Seta | Setae | Setb | Setbe | Sete | Setg | Setge | Setl | Setle | Setne | Setno | Setnp | Setns
    | Seto | Setp | Sets => choose(set_form),
}

fn cmov_form(instruction: &Instruction, op: &Op) -> Handler {
    let code = code(instruction);
    match (op.size, op.mem_operand != NO_MEMORY) {
        (2, false) => by_condition!(code, cmov[u16, false]),
        (2, true) => by_condition!(code, cmov[u16, true]),
        (4, false) => by_condition!(code, cmov[u32, false]),
        (4, true) => by_condition!(code, cmov[u32, true]),
        (_, false) => by_condition!(code, cmov[u64, false]),
        (_, true) => by_condition!(code, cmov[u64, true]),
    }
}

fn set_form(instruction: &Instruction, op: &Op) -> Handler {
    let code = code(instruction);
    if op.mem_operand == NO_MEMORY {
        by_condition!(code, set[false])
    } else {
        by_condition!(code, set[true])
    }
}

/// The source is read, and a 32-bit destination's upper half cleared, whether the condition holds
/// or not.
extern "C" fn cmov<T: Int, const MEMORY: bool, const CODE: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    let source = cpu.source::<T, MEMORY>(op)?;
    let old = cpu.dst::<T>(op);
    let value = if holds::<CODE>(&cpu.arch.flags) { source } else { old };
    cpu.set_dst(op, value);
    Ok(())
}

extern "C" fn set<const MEMORY: bool, const CODE: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = u8::from(holds::<CODE>(&cpu.arch.flags));
    if MEMORY {
        return cpu.store_operand(op, value);
    }
    cpu.set_dst(op, value);
    Ok(())
}
