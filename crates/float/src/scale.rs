//! FSCALE and FXTRACT.

use super::env::{Env, Flags};
use super::exact::Exact;
use super::format::{Class, F80, Format, Operand};
use super::integral::truncate_saturating;
use super::nan::{invalid, propagate_one, propagate_two};
use super::round::{round, unchanged};

/// FSCALE: `a * 2^trunc(b)` (SDM vol. 2, FSCALE, table 3-34).
pub fn scale(env: &mut Env, a: F80, b: F80) -> F80 {
    let (a, b) = (a.unpack(), b.unpack());
    if let Some(nan) = propagate_two(env, a, b) {
        return nan;
    }
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) if b.sign => return invalid(env),
        (Class::Zero, Class::Infinity) if !b.sign => return invalid(env),
        _ => {}
    }
    if (a.denormal || b.denormal) && env.raise_denormal() {
        return F80::INDEFINITE;
    }
    match (a.class, b.class) {
        (Class::Infinity, _) => F80::infinity(a.sign),
        (Class::Zero, _) => F80::zero(a.sign),
        (_, Class::Infinity) if b.sign => F80::zero(a.sign),
        (_, Class::Infinity) => F80::infinity(a.sign),
        (_, Class::Zero) => unchanged(env, a),
        _ => {
            // Far beyond what over- and underflow and their exponent adjustment span.
            let power = truncate_saturating(b).clamp(-0x1_0000, 0x1_0000);
            round(env, Exact::from(a).scaled(power))
        }
    }
}

/// FXTRACT: the exponent, which replaces ST(0), and the significand, which is pushed.
pub fn extract(env: &mut Env, a: F80) -> (F80, F80) {
    let a: Operand = a.unpack();
    if let Some(nan) = propagate_one(env, a) {
        return (nan, nan);
    }
    match a.class {
        Class::Zero => {
            env.raise(Flags::ZE);
            (F80::infinity(true), F80::zero(a.sign))
        }
        Class::Infinity => (F80::infinity(false), F80::infinity(a.sign)),
        _ => {
            if a.denormal && env.raise_denormal() {
                return (F80::INDEFINITE, F80::INDEFINITE);
            }
            let exponent = Operand::from_i64(i64::from(a.exponent));
            let exponent = match exponent.class {
                Class::Zero => F80::ZERO,
                // At most 15 bits: exact.
                _ => round(env, exponent.into()),
            };
            let significand = F80::assemble(a.sign, F80::MAX_EXPONENT as u32, a.significand);
            (exponent, significand)
        }
    }
}
