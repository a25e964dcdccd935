//! Conversions among the floating-point formats and to and from integers.

use super::arith::operand;
use super::env::{Env, Flags, Rounding};
use super::exact::{Exact, shift_right_sticky};
use super::format::{Class, Format, Operand};
use super::nan::propagate_one;
use super::round::round;

/// Converts between formats: CVTSS2SD, CVTSD2SS, FLD and FST with a memory operand of 32 or 64
/// bits.
///
/// A denormal source raises DE unless it is in the x87 format (FST has no such exception).
pub fn convert<F: Format, T: Format>(env: &mut Env, x: F) -> T {
    let x = operand(env, x);
    if let Some(nan) = propagate_one(env, x) {
        return nan;
    }
    match x.class {
        Class::Zero => T::zero(x.sign),
        Class::Infinity => T::infinity(x.sign),
        _ => {
            // FLD completes with DE unmasked, and a widening conversion raises nothing more; a
            // narrowing one must not report the exceptions of the result.
            if !F::X87 && x.denormal && env.raise_denormal() && T::PRECISION < F::PRECISION {
                return T::indefinite();
            }
            let before = env.flags;
            let result = round(env, x.into());
            // SDM vol. 1, sections 8.5.4 and 8.5.5: FST stores nothing on an unmasked overflow or
            // underflow, so that there is no inexact result to report either.
            if F::X87 && env.pending.intersects(Flags::OE | Flags::UE) {
                env.flags = before | env.flags & (Flags::OE | Flags::UE);
                env.pending.remove(Flags::PE);
                env.rounded_up = false;
            }
            result
        }
    }
}

/// Converts a 32-bit integer.
pub fn from_i32<F: Format>(env: &mut Env, value: i32) -> F {
    from_i64(env, i64::from(value))
}

/// Converts a 64-bit integer.
pub fn from_i64<F: Format>(env: &mut Env, value: i64) -> F {
    let x = Operand::from_i64(value);
    if x.class == Class::Zero {
        return F::zero(false);
    }
    round(env, x.into())
}

/// Converts to a 16-bit integer; 8000H and IE if it does not fit.
pub fn to_i16<F: Format>(env: &mut Env, x: F, rounding: Rounding) -> i16 {
    to_integer(env, x, 16, rounding) as i16
}

/// Converts to a 32-bit integer; 80000000H and IE if it does not fit.
pub fn to_i32<F: Format>(env: &mut Env, x: F, rounding: Rounding) -> i32 {
    to_integer(env, x, 32, rounding) as i32
}

/// Converts to a 64-bit integer; 8000000000000000H and IE if it does not fit.
pub fn to_i64<F: Format>(env: &mut Env, x: F, rounding: Rounding) -> i64 {
    to_integer(env, x, 64, rounding)
}

/// Converts to a signed integer of `bits` (1 to 64) bits, or to the integer indefinite of that
/// width, its most negative value, with IE (SDM vol. 1, section 4.8.3.7 and table 4-1).
pub fn to_integer<F: Format>(env: &mut Env, x: F, bits: u32, rounding: Rounding) -> i64 {
    let x = operand(env, x);
    let limit = 1u64 << (bits - 1);
    let indefinite = (limit as i64).wrapping_neg();
    match x.class {
        Class::Zero => 0,
        Class::Finite => {
            let Some(integer) = round_magnitude(x, rounding) else {
                env.raise(Flags::IE);
                return indefinite;
            };
            if integer.magnitude > limit || integer.magnitude == limit && !x.sign {
                env.raise(Flags::IE);
                return indefinite;
            }
            env.rounded_up = integer.up;
            if integer.inexact {
                env.raise(Flags::PE);
            }
            let value = integer.magnitude as i64;
            if x.sign { value.wrapping_neg() } else { value }
        }
        _ => {
            env.raise(Flags::IE);
            indefinite
        }
    }
}

/// A magnitude rounded to an integer.
pub(super) struct Integer {
    pub(super) magnitude: u64,
    pub(super) inexact: bool,
    pub(super) up: bool,
}

/// Rounds a finite number to an integer; `None` if the magnitude has more than 64 bits.
pub(super) fn round_magnitude(x: Operand, rounding: Rounding) -> Option<Integer> {
    if x.exponent > 63 {
        return None;
    }
    // The integer part ends up in the upper half, the fraction in the lower one, the least bit of
    // it sticky.
    let shift = x.exponent.abs_diff(63);
    let fixed = shift_right_sticky(Exact::from(x).significand, shift);
    let magnitude = (fixed >> 64) as u64;
    let fraction = fixed as u64;
    let half = 1 << 63;
    let up = fraction != 0
        && match rounding {
            Rounding::Nearest => fraction > half || fraction == half && magnitude & 1 != 0,
            Rounding::Down => x.sign,
            Rounding::Up => !x.sign,
            Rounding::Zero => false,
        };
    Some(Integer { magnitude: magnitude.checked_add(u64::from(up))?, inexact: fraction != 0, up })
}
