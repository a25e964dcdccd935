//! Shifts of packed integers.

use iced_x86::OpKind;

use crate::cpu::Cpu;
use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{by_form, mmx, sse, sse_imm};
use crate::exec::vector::lane::{Lane, map, zip};
use crate::exit::Exec;
use crate::op::{Op, VEX_256, handler};

/// The handler of a shift of all elements by the low quadword of the last operand, which has 128
/// bits whatever the vector length is.
macro_rules! by_count {
    ($op:expr, $f:ident) => {{
        extern "C" fn run<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
            cpu.check_form::<FORM>()?;
            let [count, _] = cpu.xmm_source::<FORM, KIND>(op)?;
            let [low, high] = cpu.arch.vector.ymm(op.third);
            if FORM == VEX_256 {
                cpu.arch.vector.set_ymm(op.dst, [$f(low, count), $f(high, count)]);
            } else {
                cpu.arch.vector.set_low::<FORM>(op.dst, $f(low, count));
            }
            Ok(())
        }
        by_form!($op, run, M128)
    }};
}

/// A shift by an immediate, which `$f` takes as a `$t`.
macro_rules! shift_imm {
    ($op:expr, $f:ident, $t:ty) => {
        sse_imm!($op, M128, |a, _, imm: u8| $f(a, <$t>::from(imm)))
    };
}
/// A shift whose count is a register, memory (both 64 bits of it) or an immediate.
macro_rules! shift {
    ($f:ident) => {
        |instruction, op| {
            let by_immediate =
                [instruction.op1_kind(), instruction.op2_kind()].contains(&OpKind::Immediate8);
            match (instruction.op0_register().is_mm(), by_immediate) {
                (true, false) => mmx!(op, u64, |a, b| $f([a, 0], b)[0]),
                (true, true) => handler!(|cpu, op| {
                    by_immediate_mmx(cpu, op, |a| $f([a, 0], op.imm & 0xff)[0])
                }),
                (false, false) => by_count!(op, $f),
                (false, true) => shift_imm!(op, $f, u64),
            }
        }
    };
}

vector_rows! {
    Psllw | Vpsllw => choose(shift!(psllw)),
    Pslld | Vpslld => choose(shift!(pslld)),
    Psllq | Vpsllq => choose(shift!(psllq)),
    Psrlw | Vpsrlw => choose(shift!(psrlw)),
    Psrld | Vpsrld => choose(shift!(psrld)),
    Psrlq | Vpsrlq => choose(shift!(psrlq)),
    Psraw | Vpsraw => choose(shift!(psraw)),
    Psrad | Vpsrad => choose(shift!(psrad)),
    Pslldq | Vpslldq => choose(|_, op| shift_imm!(op, pslldq, u8)),
    Psrldq | Vpsrldq => choose(|_, op| shift_imm!(op, psrldq, u8)),
    Vpsllvd => choose(|_, op| {
        sse!(op, M128, |a, b| zip(a, b, |a: u32, n| if n < 32 { a << n } else { 0 }))
    }),
    Vpsllvq => choose(|_, op| {
        sse!(op, M128, |a, b| zip(a, b, |a: u64, n| if n < 64 { a << n } else { 0 }))
    }),
    Vpsrlvd => choose(|_, op| {
        sse!(op, M128, |a, b| zip(a, b, |a: u32, n| if n < 32 { a >> n } else { 0 }))
    }),
    Vpsrlvq => choose(|_, op| {
        sse!(op, M128, |a, b| zip(a, b, |a: u64, n| if n < 64 { a >> n } else { 0 }))
    }),
    Vpsravd => choose(|_, op| {
        sse!(op, M128, |a, b| zip(a, b, |a: i32, n| a >> (n as u32).min(31)))
    }),
}

#[inline(always)]
fn by_immediate_mmx(cpu: &mut Cpu, op: &Op, f: impl Fn(u64) -> u64) -> Exec {
    cpu.check_mmx()?;
    let a = cpu.mmx(op.dst);
    cpu.set_mmx(op.dst, f(a));
    Ok(())
}

macro_rules! logical {
    ($($name:ident, $mnemonic:literal, $t:ty, $operator:tt);*) => {$(
        #[doc = $mnemonic]
        #[doc = ": a count as wide as the element or more gives zero."]
        #[inline(always)]
        #[must_use]
        pub(crate) fn $name(a: Lane, count: u64) -> Lane {
            if count >= u64::from(<$t>::BITS) {
                return [0; 2];
            }
            map(a, |a: $t| a $operator count)
        }
    )*};
}
logical!(
    psllw, "PSLLW", u16, <<; pslld, "PSLLD", u32, <<; psllq, "PSLLQ", u64, <<;
    psrlw, "PSRLW", u16, >>; psrld, "PSRLD", u32, >>; psrlq, "PSRLQ", u64, >>
);

/// PSRAW: a count of 16 or more fills with the sign.
#[inline(always)]
#[must_use]
pub(crate) fn psraw(a: Lane, count: u64) -> Lane {
    let count = count.min(15);
    map(a, |a: i16| a >> count)
}

/// PSRAD: a count of 32 or more fills with the sign.
#[inline(always)]
#[must_use]
pub(crate) fn psrad(a: Lane, count: u64) -> Lane {
    let count = count.min(31);
    map(a, |a: i32| a >> count)
}

/// PSLLDQ: a shift by bytes.
#[inline(always)]
#[must_use]
pub(crate) fn pslldq(a: Lane, bytes: u8) -> Lane {
    let bits = u32::from(bytes) * 8;
    match bits {
        0 => a,
        1..64 => [a[0] << bits, a[1] << bits | a[0] >> (64 - bits)],
        64..128 => [0, a[0] << (bits - 64)],
        _ => [0; 2],
    }
}

/// PSRLDQ: a shift by bytes.
#[inline(always)]
#[must_use]
pub(crate) fn psrldq(a: Lane, bytes: u8) -> Lane {
    let bits = u32::from(bytes) * 8;
    match bits {
        0 => a,
        1..64 => [a[0] >> bits | a[1] << (64 - bits), a[1] >> bits],
        64..128 => [a[1] >> (bits - 64), 0],
        _ => [0; 2],
    }
}
