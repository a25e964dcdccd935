//! FPREM and FPREM1.

use super::env::Env;
use super::exact::Exact;
use super::format::{Class, F80, Format, Operand};
use super::nan::{invalid, propagate_two};
use super::round::{renormalized, round, unchanged};

/// How the quotient is rounded to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemainderKind {
    /// Toward zero: FPREM.
    Truncated,
    /// To nearest even: FPREM1, the remainder of IEEE 754.
    Nearest,
}

/// A remainder, possibly partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// The new ST(0).
    pub value: F80,
    /// The low bits of the quotient's magnitude, of which the three lowest go to C0, C3 and C1;
    /// `None` if the result is a NaN. Zero for a partial one.
    pub quotient: Option<u64>,
    /// The reduction is incomplete: C2.
    pub partial: bool,
}

impl Remainder {
    const fn unchanged(value: F80) -> Self {
        Self { value, quotient: Some(0), partial: false }
    }

    const fn nan(value: F80) -> Self {
        Self { value, quotient: None, partial: false }
    }
}

/// The remainder of `a / b` (SDM vol. 2, FPREM and FPREM1). Exact: only IE, DE and an unmasked UE
/// arise.
pub fn remainder(env: &mut Env, a: F80, b: F80, kind: RemainderKind) -> Remainder {
    let (a, b) = (a.unpack(), b.unpack());
    if let Some(nan) = propagate_two(env, a, b) {
        return Remainder::nan(nan);
    }
    if a.class == Class::Infinity || b.class == Class::Zero {
        return Remainder::nan(invalid(env));
    }
    if (a.denormal || b.denormal) && env.raise_denormal() {
        return Remainder::nan(F80::INDEFINITE);
    }
    if a.class == Class::Zero || b.class == Class::Infinity {
        return Remainder::unchanged(unchanged(env, a));
    }
    let distance = a.exponent - b.exponent;
    if distance < 64 { whole(env, a, b, distance, kind) } else { partial(env, a, b, distance) }
}

fn whole(env: &mut Env, a: Operand, b: Operand, distance: i32, kind: RemainderKind) -> Remainder {
    if distance < -1 {
        return Remainder::unchanged(renormalized(env, a));
    }
    // In units of the smaller operand's last bit.
    let (dividend, divisor) = if distance < 0 {
        (u128::from(a.significand), u128::from(b.significand) << 1)
    } else {
        (u128::from(a.significand) << distance, u128::from(b.significand))
    };
    let unit = a.exponent.min(b.exponent);
    let mut quotient = (dividend / divisor) as u64;
    let mut rest = dividend % divisor;
    let mut sign = a.sign;
    if kind == RemainderKind::Nearest {
        let other = divisor - rest;
        if rest > other || rest == other && quotient & 1 != 0 {
            quotient = quotient.wrapping_add(1);
            rest = other;
            sign = !sign;
        }
    }
    Remainder {
        value: pack(env, a.sign, sign, unit, rest),
        quotient: Some(quotient),
        partial: false,
    }
}

fn partial(env: &mut Env, a: Operand, b: Operand, distance: i32) -> Remainder {
    // The SDM leaves N, between 32 and 63, to the implementation; this one brings the distance to a
    // multiple of 32.
    let bits = distance & 31 | 32;
    let rest = (u128::from(a.significand) << bits) % u128::from(b.significand);
    let unit = b.exponent + distance - bits;
    Remainder { value: pack(env, a.sign, a.sign, unit, rest), quotient: Some(0), partial: true }
}

/// `rest * 2^(unit - 63)`; a zero takes the dividend's sign.
fn pack(env: &mut Env, dividend_sign: bool, sign: bool, unit: i32, rest: u128) -> F80 {
    match Exact::normalized(sign, unit + 64, rest) {
        Some(value) => round(env, value),
        None => F80::zero(dividend_sign),
    }
}
