//! Rounding of an exact result into a format, with overflow and underflow (SDM vol. 1, sections
//! 4.8.4 and 4.9.1).

use super::env::{Env, Flags, Rounding};
use super::exact::{Exact, shift_right_sticky};
use super::format::{Class, Format, Operand};

/// The exponent adjustment of an unmasked x87 overflow or underflow (SDM vol. 1, sections 8.5.4 and
/// 8.5.5).
const BIAS_ADJUST: i32 = 24576;

/// A significand cut to a precision.
pub(super) struct Rounded {
    /// The kept bits, the integer bit at bit 63.
    pub(super) significand: u64,
    /// The increment carried out of bit 63: the significand is `1 << 63`, of the next exponent.
    pub(super) carry: bool,
    pub(super) inexact: bool,
    pub(super) up: bool,
}

/// Keeps the upper `precision` (1 to 64) bits of `significand`.
#[inline(always)]
pub(super) fn round_significand(
    rounding: Rounding,
    sign: bool,
    significand: u128,
    precision: u32,
) -> Rounded {
    let (high, low) = ((significand >> 64) as u64, significand as u64);
    let dropped = 64 - precision;
    let ulp = 1u64 << dropped;
    let kept = high & !(ulp - 1);
    // What is dropped, as a fraction of the last kept bit; the least bit of it is sticky.
    let rest = if dropped == 0 { low } else { high << (64 - dropped) | u64::from(low != 0) };
    let half = 1 << 63;
    let up = rest != 0
        && match rounding {
            Rounding::Nearest => rest > half || rest == half && kept & ulp != 0,
            Rounding::Down => sign,
            Rounding::Up => !sign,
            Rounding::Zero => false,
        };
    let (sum, carry) = kept.overflowing_add(if up { ulp } else { 0 });
    Rounded { significand: if carry { 1 << 63 } else { sum }, carry, inexact: rest != 0, up }
}

/// Rounds to the format's full precision.
#[inline]
pub(super) fn round<F: Format>(env: &mut Env, value: Exact) -> F {
    round_to(env, value, F::PRECISION)
}

/// Rounds to the precision that x87 precision control asks for, which other formats ignore.
#[inline]
pub(super) fn round_controlled<F: Format>(env: &mut Env, value: Exact) -> F {
    let precision = if F::X87 { env.precision.bits() } else { F::PRECISION };
    round_to(env, value, precision)
}

/// The value with its encoding normalized, as the x87 returns an operand unchanged: exact, but tiny
/// values meet the underflow response.
pub(super) fn renormalized<F: Format>(env: &mut Env, x: Operand) -> F {
    match x.class {
        Class::Zero => F::zero(x.sign),
        Class::Infinity => F::infinity(x.sign),
        _ => round(env, x.into()),
    }
}

/// As [`renormalized`] of an operand that Intel processors hand back whatever its size: not even a
/// tiny one underflows.
pub(super) fn unchanged<F: Format>(env: &Env, x: Operand) -> F {
    renormalized(&mut Env { masks: env.masks | Flags::UE, ..*env }, x)
}

#[inline(always)]
fn round_to<F: Format>(env: &mut Env, value: Exact, precision: u32) -> F {
    let rounded = round_significand(env.rounding, value.sign, value.significand, precision);
    let exponent = value.exponent.saturating_add(i32::from(rounded.carry));
    if exponent > F::MAX_EXPONENT {
        return overflow(env, value.sign, exponent, &rounded, precision);
    }
    // Tininess is judged after rounding, as if the exponent had no lower bound.
    if exponent < F::MIN_EXPONENT {
        return underflow(env, value, exponent, &rounded, precision);
    }
    finish(env, &rounded);
    F::assemble(value.sign, (exponent + F::MAX_EXPONENT) as u32, rounded.significand)
}

#[inline(always)]
fn finish(env: &mut Env, rounded: &Rounded) {
    env.rounded_up = rounded.up;
    if rounded.inexact {
        env.raise(Flags::PE);
    }
}

#[cold]
fn overflow<F: Format>(
    env: &mut Env,
    sign: bool,
    exponent: i32,
    rounded: &Rounded,
    precision: u32,
) -> F {
    let masked = env.masks.contains(Flags::OE);
    if !masked {
        env.raise(Flags::OE);
        let adjusted = exponent.saturating_sub(BIAS_ADJUST);
        if !F::X87 || adjusted <= F::MAX_EXPONENT {
            finish(env, rounded);
            // SSE delivers no result at all; any value will do.
            let biased = if F::X87 { (adjusted + F::MAX_EXPONENT) as u32 } else { 0 };
            return F::assemble(sign, biased, rounded.significand);
        }
    }
    env.raise(Flags::OE | Flags::PE);
    let to_infinity = match env.rounding {
        // FSCALE reaches beyond what the adjustment brings back.
        _ if !masked => true,
        Rounding::Nearest => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    };
    env.rounded_up = to_infinity;
    if to_infinity {
        F::infinity(sign)
    } else {
        let largest = u64::MAX << (64 - precision);
        F::assemble(sign, 2 * F::MAX_EXPONENT as u32, largest)
    }
}

#[cold]
fn underflow<F: Format>(
    env: &mut Env,
    value: Exact,
    exponent: i32,
    rounded: &Rounded,
    precision: u32,
) -> F {
    let masked = env.masks.contains(Flags::UE);
    if !masked {
        env.raise(Flags::UE);
        let adjusted = exponent.saturating_add(BIAS_ADJUST);
        if !F::X87 || adjusted >= F::MIN_EXPONENT {
            // PE is that of a result whose exponent has no lower bound; SSE delivers none.
            finish(env, rounded);
            let biased = if F::X87 { (adjusted + F::MAX_EXPONENT) as u32 } else { 0 };
            return F::assemble(value.sign, biased, rounded.significand);
        }
    }
    // FSCALE reaches beyond what the adjustment brings back.
    if !masked || env.ftz && !F::X87 {
        env.raise(Flags::UE | Flags::PE);
        env.rounded_up = false;
        return F::zero(value.sign);
    }
    let shift = F::MIN_EXPONENT.saturating_sub(value.exponent) as u32;
    let denormal = round_significand(
        env.rounding,
        value.sign,
        shift_right_sticky(value.significand, shift),
        precision,
    );
    finish(env, &denormal);
    if denormal.inexact {
        env.raise(Flags::UE);
    }
    // Rounding may have made it the smallest normal number.
    F::assemble(value.sign, (denormal.significand >> 63) as u32, denormal.significand)
}
