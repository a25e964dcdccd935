//! Rounding to an integral value.

use super::arith::operand;
use super::convert::round_magnitude;
use super::env::{Env, Flags, Rounding};
use super::format::{Class, Format, Operand};
use super::nan::propagate_one;

/// Rounds to an integral value in the same format: ROUNDSS and FRNDINT.
///
/// Only the x87 format raises DE. `suppress_inexact` is bit 3 of the immediate of ROUNDSS.
pub fn round_to_integral<F: Format>(
    env: &mut Env,
    value: F,
    rounding: Rounding,
    suppress_inexact: bool,
) -> F {
    let x = operand(env, value);
    if let Some(nan) = propagate_one(env, x) {
        return nan;
    }
    match x.class {
        Class::Zero => return F::zero(x.sign),
        Class::Finite => {}
        _ => return value,
    }
    if F::X87 && x.denormal && env.raise_denormal() {
        return value;
    }
    if x.exponent >= F::PRECISION as i32 - 1 {
        return value;
    }
    let Some(integer) = round_magnitude(x, rounding) else {
        return value;
    };
    env.rounded_up = integer.up;
    if integer.inexact && !suppress_inexact {
        env.raise(Flags::PE);
    }
    if integer.magnitude == 0 {
        return F::zero(x.sign);
    }
    // At most 2^(PRECISION - 1): exact in the format.
    let shift = integer.magnitude.leading_zeros();
    let exponent = 63 - shift as i32 + F::MAX_EXPONENT;
    F::assemble(x.sign, exponent as u32, integer.magnitude << shift)
}

/// Truncates a finite number toward zero; saturates at 32 bits.
pub(super) fn truncate_saturating(x: Operand) -> i32 {
    let magnitude =
        round_magnitude(x, Rounding::Zero).map_or(i32::MAX as u64, |integer| integer.magnitude);
    let magnitude = magnitude.min(i32::MAX as u64) as i32;
    if x.sign { -magnitude } else { magnitude }
}
