//! Comparison, minimum and maximum.

use core::cmp::Ordering;

use super::arith::operand;
use super::env::{Env, Flags};
use super::format::{Class, Format, Operand};

/// How the first operand relates to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `a < b`.
    Less,
    /// `a = b`; zeros are equal whatever their signs.
    Equal,
    /// `a > b`.
    Greater,
    /// An operand is a NaN or unsupported.
    Unordered,
}

/// Which NaNs a comparison objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Only a signalling NaN raises IE: UCOMISS, FUCOM, the quiet predicates of CMPPS.
    Quiet,
    /// Any NaN raises IE: COMISS, FCOM, the signalling predicates.
    Signaling,
}

/// Compares two values.
#[inline]
pub fn compare<F: Format>(env: &mut Env, a: F, b: F, comparison: Comparison) -> Relation {
    let (a, b) = (operand(env, a), operand(env, b));
    compare_operands(env, a, b, comparison)
}

/// Compares operands of any formats, as FCOM with a memory operand does.
pub fn compare_operands(env: &mut Env, a: Operand, b: Operand, comparison: Comparison) -> Relation {
    let either = |class| a.class == class || b.class == class;
    if either(Class::Unsupported) || either(Class::SignalingNan) {
        env.raise(Flags::IE);
        return Relation::Unordered;
    }
    if either(Class::QuietNan) {
        if comparison == Comparison::Signaling {
            env.raise(Flags::IE);
        }
        return Relation::Unordered;
    }
    if a.denormal || b.denormal {
        env.raise(Flags::DE);
    }
    match order(a, b) {
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    }
}

fn order(a: Operand, b: Operand) -> Ordering {
    if a.class == Class::Zero && b.class == Class::Zero {
        return Ordering::Equal;
    }
    // Magnitudes order by class, then exponent, then significand; the sign turns them around.
    let rank = |x: Operand| match x.class {
        Class::Zero => (0, 0, 0),
        Class::Finite => (1, x.exponent, x.significand),
        _ => (2, 0, 0),
    };
    match (a.sign, b.sign) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => rank(a).cmp(&rank(b)),
        (true, true) => rank(b).cmp(&rank(a)),
    }
}

/// The minimum as MINSS has it: the second operand if either is a NaN or both are zeros.
pub fn min<F: Format>(env: &mut Env, a: F, b: F) -> F {
    select(env, a, b, Relation::Less)
}

/// The maximum as MAXSS has it: the second operand if either is a NaN or both are zeros.
pub fn max<F: Format>(env: &mut Env, a: F, b: F) -> F {
    select(env, a, b, Relation::Greater)
}

fn select<F: Format>(env: &mut Env, a: F, b: F, wanted: Relation) -> F {
    let (chosen, other) = if compare(env, a, b, Comparison::Signaling) == wanted {
        (a, operand(env, a))
    } else {
        (b, operand(env, b))
    };
    if other.class == Class::Zero {
        // Denormals-are-zero reaches the result, too.
        return F::zero(other.sign);
    }
    chosen
}
