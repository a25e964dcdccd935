//! Conversions to integers (SDM Vol. 1, 11.4.1.6). The truncating ones are those with an
//! additional T in the name.

use cloister_float::{Env, Format, Rounding, to_i32, to_i64};

use crate::cpu::Cpu;
use crate::exec::table::{choose, float_rows};
use crate::exec::vector::form::{M32, M64, M128, REGISTER, sse_float, sse_float_narrow};
use crate::exec::vector::lane::{Element, Lane, map_with};
use crate::exit::Exec;
use crate::op::{Handler, LEGACY, NO_MEMORY, Op, VEX_128};

macro_rules! scalar {
    ($t:ty, $kind:ident, $truncate:literal) => {
        |instruction, op| match (op.mem_operand != NO_MEMORY, instruction.op0_register().is_gpr64())
        {
            (false, false) => to_register::<$t, REGISTER, $truncate, false> as Handler,
            (false, true) => to_register::<$t, REGISTER, $truncate, true>,
            (true, false) => to_register::<$t, $kind, $truncate, false>,
            (true, true) => to_register::<$t, $kind, $truncate, true>,
        }
    };
}
macro_rules! mmx {
    ($kind:ident, $f:expr) => {
        |_, op| {
            extern "C" fn run<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
                to_mmx::<KIND>(cpu, op, $f)
            }
            if op.mem_operand == NO_MEMORY { run::<REGISTER> as Handler } else { run::<$kind> }
        }
    };
}

float_rows! {
    Cvtss2si | Vcvtss2si => choose(scalar!(u32, M32, false)),
    Cvttss2si | Vcvttss2si => choose(scalar!(u32, M32, true)),
    Cvtsd2si | Vcvtsd2si => choose(scalar!(u64, M64, false)),
    Cvttsd2si | Vcvttsd2si => choose(scalar!(u64, M64, true)),
    Cvtps2dq | Vcvtps2dq => choose(|_, op| {
        sse_float!(op, M128, |env, _, b| cvtps2dq(env, b, env.rounding))
    }),
    Cvttps2dq | Vcvttps2dq => choose(|_, op| {
        sse_float!(op, M128, |env, _, b| cvtps2dq(env, b, Rounding::Zero))
    }),
    Cvtpd2dq | Vcvtpd2dq => choose(|_, op| {
        sse_float_narrow!(op, |env, b| cvtpd2dq(env, b, env.rounding))
    }),
    Cvttpd2dq | Vcvttpd2dq => choose(|_, op| {
        sse_float_narrow!(op, |env, b| cvtpd2dq(env, b, Rounding::Zero))
    }),
    Cvtps2pi => choose(mmx!(M64, |env, b| cvtps2pi(env, b[0], env.rounding))),
    Cvttps2pi => choose(mmx!(M64, |env, b| cvtps2pi(env, b[0], Rounding::Zero))),
    Cvtpd2pi => choose(mmx!(M128, |env, b| cvtpd2dq(env, b, env.rounding))),
    Cvttpd2pi => choose(mmx!(M128, |env, b| cvtpd2dq(env, b, Rounding::Zero))),
}

/// CVTPS2DQ and CVTTPS2DQ.
#[inline(always)]
pub(crate) fn cvtps2dq(env: &mut Env, b: Lane, rounding: Rounding) -> Lane {
    map_with(env, b, |env, x: u32| to_i32(env, x, rounding) as u32)
}

/// CVTPD2DQ and CVTTPD2DQ: two elements.
#[inline(always)]
pub(crate) fn cvtpd2dq(env: &mut Env, b: Lane, rounding: Rounding) -> u64 {
    let low = to_i32(env, b[0], rounding);
    let high = to_i32(env, b[1], rounding);
    i32::join([low, high, 0, 0])[0]
}

/// CVTPS2PI and CVTTPS2PI: the low two elements.
#[inline(always)]
pub(crate) fn cvtps2pi(env: &mut Env, b: u64, rounding: Rounding) -> u64 {
    let low = to_i32(env, b as u32, rounding);
    let high = to_i32(env, (b >> 32) as u32, rounding);
    i32::join([low, high, 0, 0])[0]
}

/// A scalar that comes from the low bits of a register.
trait Scalar: Format {
    fn low(bits: u64) -> Self;
}

impl Scalar for u32 {
    fn low(bits: u64) -> Self {
        bits as Self
    }
}

impl Scalar for u64 {
    fn low(bits: u64) -> Self {
        bits
    }
}

extern "C" fn to_register<T: Scalar, const KIND: u8, const TRUNCATE: bool, const WIDE: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    cpu.check_vector(op)?;
    let x = T::low(cpu.xmm_source::<VEX_128, KIND>(op)?[0]);
    let value = cpu.simd(|env| {
        let rounding = if TRUNCATE { Rounding::Zero } else { env.rounding };
        if WIDE { to_i64(env, x, rounding) as u64 } else { to_i32(env, x, rounding) as u32 as u64 }
    })?;
    cpu.set_reg(op.dst, false, value);
    Ok(())
}

#[inline(always)]
fn to_mmx<const KIND: u8>(cpu: &mut Cpu, op: &Op, f: impl Fn(&mut Env, Lane) -> u64) -> Exec {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let b = cpu.xmm_source::<LEGACY, KIND>(op)?;
    // The change to MMX operation comes before any #XM.
    cpu.enter_mmx();
    let result = cpu.simd(|env| f(env, b))?;
    cpu.set_mmx(op.dst, result);
    Ok(())
}
