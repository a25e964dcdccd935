//! F2XM1, FYL2X and FYL2XP1.

use super::env::{Env, Flags};
use super::exact::Exact;
use super::format::{Class, F80, Format, Operand};
use super::nan::{invalid, propagate_one, propagate_two};
use super::round::{renormalized, round};
use super::series::{self, ONE};

/// The leading bits of the square root of two's significand: the split between the octaves of a
/// logarithm.
const SQRT_2: u128 = 0xb504_f333_f9de_6484 << 64;

/// F2XM1: `2^x - 1` for `-1 <= x <= 1` (SDM vol. 2, F2XM1).
///
/// Outside of that the SDM leaves the result undefined: -1 is returned for minus infinity, and
/// other values come back unchanged.
pub fn f2xm1(env: &mut Env, x: F80) -> F80 {
    let value = x;
    let x = x.unpack();
    if let Some(nan) = propagate_one(env, x) {
        return nan;
    }
    match x.class {
        Class::Zero => return value,
        Class::Infinity if x.sign => return F80::ONE.negate(),
        Class::Infinity => return value,
        _ => {}
    }
    if x.denormal && env.raise_denormal() {
        return F80::INDEFINITE;
    }
    if x.exponent >= 0 {
        // Processors report what comes back from here as inexact, the exact 2^1 - 1 and 2^-1 - 1
        // included.
        env.raise(Flags::PE);
        let is_minus_one = x.sign && x.exponent == 0 && x.significand == 1 << 63;
        return if is_minus_one { F80::new(0xbffe, 1 << 63) } else { value };
    }
    round(env, inexact(series::exp2_minus_1(x.into())))
}

/// Marks a value as an approximation.
fn inexact(mut x: Exact) -> Exact {
    x.significand |= 1;
    x
}

/// FYL2X: `y * log2(x)` (SDM vol. 2, FYL2X, table 3-48).
pub fn fyl2x(env: &mut Env, y: F80, x: F80) -> F80 {
    let (y, x) = (y.unpack(), x.unpack());
    if let Some(nan) = propagate_two(env, y, x) {
        return nan;
    }
    if x.sign && x.class != Class::Zero {
        return invalid(env);
    }
    let is_one = x.class == Class::Finite && x.exponent == 0 && x.significand == 1 << 63;
    match (y.class, x.class) {
        (Class::Zero, Class::Zero | Class::Infinity) => return invalid(env),
        (Class::Infinity, Class::Finite) if is_one => return invalid(env),
        (Class::Finite, Class::Zero) => {
            env.raise(Flags::ZE);
            return F80::infinity(!y.sign);
        }
        (Class::Infinity, Class::Zero) => return F80::infinity(!y.sign),
        _ => {}
    }
    if (y.denormal || x.denormal) && env.raise_denormal() {
        return F80::INDEFINITE;
    }
    if x.class == Class::Infinity {
        return F80::infinity(y.sign);
    }
    let sign = y.sign ^ (x.exponent < 0);
    match y.class {
        Class::Infinity => F80::infinity(sign),
        Class::Zero => F80::zero(sign),
        _ => match log2(x.into()) {
            // The logarithm of one.
            None => F80::zero(y.sign),
            Some(logarithm) => {
                // Processors report even the logarithm of a power of two as inexact.
                let result: F80 = round(env, Exact::from(y).times(logarithm));
                env.raise(Flags::PE);
                if result.biased() == 0 {
                    env.raise(Flags::UE);
                }
                result
            }
        },
    }
}

/// FYL2XP1: `y * log2(1 + x)` (SDM vol. 2, FYL2XP1, table 3-49).
///
/// The SDM leaves the result undefined for `|x|` above about 0.293. This continues the function,
/// and `x` itself is the result where there is no logarithm.
pub fn fyl2xp1(env: &mut Env, y: F80, x: F80) -> F80 {
    let (y, x): (Operand, Operand) = (y.unpack(), x.unpack());
    if let Some(nan) = propagate_two(env, y, x) {
        return nan;
    }
    match (y.class, x.class) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => return invalid(env),
        (_, Class::Infinity) if x.sign => return invalid(env),
        _ => {}
    }
    if (y.denormal || x.denormal) && env.raise_denormal() {
        return F80::INDEFINITE;
    }
    let sign = y.sign ^ x.sign;
    if y.class == Class::Infinity || x.class == Class::Infinity {
        return F80::infinity(sign);
    }
    if y.class == Class::Zero || x.class == Class::Zero {
        return F80::zero(sign);
    }
    if x.sign && x.exponent >= 0 {
        env.raise(Flags::PE);
        return renormalized(env, x);
    }
    let x = Exact::from(x);
    // |x| < 1/4 leaves 1 + x within the octave around one.
    let logarithm = if x.exponent < -2 {
        x.plus(Exact::from_u64(2)).map(|divisor| series::log2_ratio(x.over(divisor)))
    } else {
        x.plus(ONE).and_then(log2)
    };
    match logarithm {
        None => F80::zero(sign),
        Some(logarithm) => round(env, inexact(Exact::from(y).times(logarithm))),
    }
}

/// The binary logarithm of a positive number: exact for a power of two, otherwise with the sticky
/// bit set; `None` is the logarithm of one.
fn log2(x: Exact) -> Option<Exact> {
    let mut octave = x.exponent;
    let mut mantissa = Exact { exponent: 0, ..x };
    if mantissa.significand > SQRT_2 {
        octave += 1;
        mantissa.exponent = -1;
    }
    let whole = Exact::normalized(octave < 0, 127, u128::from(octave.unsigned_abs()));
    let Some(above_one) = mantissa.plus(ONE.negated()) else {
        return whole;
    };
    let fraction = mantissa.plus(ONE).map(|divisor| series::log2_ratio(above_one.over(divisor)))?;
    let logarithm = match whole {
        None => fraction,
        Some(whole) => whole.plus(fraction)?,
    };
    Some(inexact(logarithm))
}
