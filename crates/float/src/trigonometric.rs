//! FSIN, FCOS, FSINCOS, FPTAN and FPATAN.
//!
//! Arguments are reduced by the x87's own pi of 66 significant bits (SDM vol. 1, section 8.3.8),
//! which is what programs observe near multiples of pi; the reduction itself is exact.

use super::env::{Env, Flags};
use super::exact::Exact;
use super::format::{Class, F80, Format, Operand};
use super::nan::{invalid, propagate_one, propagate_two};
use super::round::round;
use super::series;

/// Half the x87's pi in units of 2^-65: 66 bits.
const HALF_PI: u128 = 0xc_90fd_aa22_168c_234c >> 2;

/// A reduced argument: `x = quadrant * pi/2 + rest`, `|rest| <= pi/4`; `None` is a rest of zero.
struct Reduced {
    quadrant: u128,
    rest: Option<Exact>,
}

fn reduce(x: Operand) -> Reduced {
    if x.exponent < -1 {
        return Reduced { quadrant: 0, rest: Some(x.into()) };
    }
    // |x| < 2^63, so this is exact and below 2^128.
    let fixed = u128::from(x.significand) << (x.exponent + 2);
    let mut quadrant = fixed / HALF_PI;
    let mut rest = fixed % HALF_PI;
    let mut sign = x.sign;
    if rest > HALF_PI / 2 {
        quadrant += 1;
        rest = HALF_PI - rest;
        sign = !sign;
    }
    Reduced {
        quadrant: if x.sign { quadrant.wrapping_neg() } else { quadrant },
        rest: Exact::normalized(sign, 127 - 65, rest),
    }
}

/// The values that need no series: `Err` is the common result, `Ok` the finite nonzero operand.
/// `Ok(None)` is an operand out of range.
fn argument(env: &mut Env, x: F80) -> Result<Option<Operand>, F80> {
    let x = x.unpack();
    if let Some(nan) = propagate_one(env, x) {
        return Err(nan);
    }
    match x.class {
        Class::Infinity => return Err(invalid(env)),
        Class::Finite if x.exponent >= 63 => return Ok(None),
        _ => {}
    }
    if x.denormal && env.raise_denormal() {
        return Err(F80::INDEFINITE);
    }
    Ok(Some(x))
}

/// Below this exponent the sine of a number is less than half a unit in the last place from it.
const TINY: i32 = -64;

/// The sine of a tiny number: Intel processors return the number itself in every rounding mode, as
/// inexact, and report underflow only where the number is a denormal.
fn itself_inexact(env: &mut Env, x: Operand) -> F80 {
    env.raise(Flags::PE);
    if x.exponent < F80::MIN_EXPONENT {
        env.raise(Flags::UE);
    }
    round(env, x.into())
}

/// `sin` (turn 0) or `cos` (turn 1) of a finite argument in range.
fn sine(env: &mut Env, x: Operand, turn: u128) -> F80 {
    if x.class == Class::Zero {
        return if turn == 0 { F80::zero(x.sign) } else { F80::ONE };
    }
    if turn == 0 && x.exponent < TINY {
        return itself_inexact(env, x);
    }
    let reduced = reduce(x);
    let quadrant = reduced.quadrant.wrapping_add(turn);
    let negate = quadrant & 2 != 0;
    let magnitude = match (quadrant & 1, reduced.rest) {
        (0, Some(rest)) => series::sin(rest),
        (0, None) => return F80::zero(negate ^ x.sign),
        (_, Some(rest)) => series::cos(rest),
        (_, None) => series::ONE,
    };
    round(
        env,
        Exact {
            sign: magnitude.sign ^ negate,
            significand: magnitude.significand | 1,
            ..magnitude
        },
    )
}

/// FSIN; `None` if the argument is out of range (`|x| >= 2^63`): C2 is set and ST(0) unchanged.
pub fn fsin(env: &mut Env, x: F80) -> Option<F80> {
    match argument(env, x) {
        Err(special) => Some(special),
        Ok(x) => x.map(|x| sine(env, x, 0)),
    }
}

/// FCOS; `None` if the argument is out of range.
pub fn fcos(env: &mut Env, x: F80) -> Option<F80> {
    match argument(env, x) {
        Err(special) => Some(special),
        Ok(x) => x.map(|x| sine(env, x, 1)),
    }
}

/// FSINCOS: the sine, which replaces ST(0), and the cosine, which is pushed; `None` if the argument
/// is out of range.
pub fn fsincos(env: &mut Env, x: F80) -> Option<(F80, F80)> {
    match argument(env, x) {
        Err(special) => Some((special, special)),
        Ok(x) => x.map(|x| {
            let cosine = sine(env, x, 1);
            (sine(env, x, 0), cosine)
        }),
    }
}

/// FPTAN: the tangent, which replaces ST(0), and the value that is pushed, 1.0 unless the operand
/// is a NaN or invalid; `None` if the argument is out of range.
pub fn fptan(env: &mut Env, x: F80) -> Option<(F80, F80)> {
    let x = match argument(env, x) {
        Err(special) => return Some((special, special)),
        Ok(x) => x?,
    };
    if x.class == Class::Zero {
        return Some((F80::zero(x.sign), F80::ONE));
    }
    let reduced = reduce(x);
    let odd = reduced.quadrant & 1 != 0;
    let tangent = match reduced.rest {
        None if odd => F80::infinity(x.sign),
        None => F80::zero(x.sign),
        Some(rest) => {
            let (sine, cosine) = (series::sin(rest), series::cos(rest));
            let mut tangent = if odd { cosine.over(sine).negated() } else { sine.over(cosine) };
            tangent.significand |= 1;
            round(env, tangent)
        }
    };
    Some((tangent, F80::ONE))
}

/// FPATAN: the angle of the point (`x`, `y`) (SDM vol. 2, FPATAN, table 3-30).
pub fn fpatan(env: &mut Env, y: F80, x: F80) -> F80 {
    let (y, x) = (y.unpack(), x.unpack());
    if let Some(nan) = propagate_two(env, y, x) {
        return nan;
    }
    if (y.denormal || x.denormal) && env.raise_denormal() {
        return F80::INDEFINITE;
    }
    // The angle as a multiple of pi/4 where an axis or a diagonal determines it.
    let quarters = match (y.class, x.class) {
        (Class::Infinity, Class::Infinity) if x.sign => 3,
        (Class::Infinity, Class::Infinity) => 1,
        (Class::Infinity, _) => 2,
        (Class::Zero, _) | (Class::Finite, Class::Infinity) => {
            if !x.sign {
                return F80::zero(y.sign);
            }
            4
        }
        (_, Class::Zero) => 2,
        _ => return round(env, angle(y, x)),
    };
    let mut angle = Exact::from_u64(quarters).times(series::PI).scaled(-2);
    angle.sign = y.sign;
    angle.significand |= 1;
    round(env, angle)
}

/// The angle of a point off the axes.
fn angle(y: Operand, x: Operand) -> Exact {
    let (opposite, adjacent) =
        (Exact { sign: false, ..y.into() }, Exact { sign: false, ..x.into() });
    let steep =
        (opposite.exponent, opposite.significand) > (adjacent.exponent, adjacent.significand);
    let acute = if steep {
        series::atan(adjacent.over(opposite))
    } else {
        series::atan(opposite.over(adjacent))
    };
    // Measured from the nearer axis; only a whole number of right angles is added.
    let (base, away) = match (steep, x.sign) {
        (false, false) => (None, false),
        (false, true) => (Some(series::PI), true),
        (true, negative) => (Some(series::PI.scaled(-1)), !negative),
    };
    let mut angle = match base {
        None => acute,
        Some(base) => base.plus(Exact { sign: away, ..acute }).unwrap_or(base),
    };
    angle.sign = y.sign;
    angle.significand |= 1;
    angle
}
