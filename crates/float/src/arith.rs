//! Addition, subtraction, multiplication, division and square root.

use super::env::{Env, Flags, Rounding};
use super::exact::Exact;
use super::format::{Class, Format, Operand};
use super::nan::{invalid, propagate_one, propagate_two};
use super::round::round_controlled;

/// Takes an operand apart and applies DAZ, which the x87 format ignores.
#[inline]
pub(super) fn operand<F: Format>(env: &Env, x: F) -> Operand {
    let x = x.unpack();
    if env.daz && !F::X87 && x.denormal {
        return F::zero(x.sign).unpack();
    }
    x
}

/// `a + b`.
#[inline]
pub fn add<F: Format>(env: &mut Env, a: F, b: F) -> F {
    if let Some(sum) = F::host_add(env, a, b) {
        return sum;
    }
    let (a, b) = (operand(env, a), operand(env, b));
    add_operands(env, a, b)
}

/// `a - b`.
#[inline]
pub fn sub<F: Format>(env: &mut Env, a: F, b: F) -> F {
    if let Some(difference) = F::host_add(env, a, b.negate()) {
        return difference;
    }
    let (a, b) = (operand(env, a), operand(env, b));
    sub_operands(env, a, b)
}

/// `a * b`.
#[inline]
pub fn mul<F: Format>(env: &mut Env, a: F, b: F) -> F {
    if let Some(product) = F::host_mul(env, a, b) {
        return product;
    }
    let (a, b) = (operand(env, a), operand(env, b));
    mul_operands(env, a, b)
}

/// `a / b`.
#[inline]
pub fn div<F: Format>(env: &mut Env, a: F, b: F) -> F {
    if let Some(quotient) = F::host_div(env, a, b) {
        return quotient;
    }
    let (a, b) = (operand(env, a), operand(env, b));
    div_operands(env, a, b)
}

/// The sum of operands of any formats, rounded once into `F`: what FADD with a memory operand
/// computes.
pub fn add_operands<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    sum(env, a, b, b.sign)
}

/// The difference of operands of any formats, rounded once into `F`.
pub fn sub_operands<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    // A NaN keeps its own sign: only the sign that enters the sum is inverted.
    sum(env, a, b, !b.sign)
}

#[inline]
fn sum<F: Format>(env: &mut Env, a: Operand, b: Operand, b_sign: bool) -> F {
    if a.is_plain() && b.is_plain() {
        finite_sum(env, a, b, b_sign)
    } else {
        special_sum(env, a, b, b_sign)
    }
}

#[inline]
fn finite_sum<F: Format>(env: &mut Env, a: Operand, b: Operand, b_sign: bool) -> F {
    let b = Exact { sign: b_sign, ..b.into() };
    match Exact::from(a).plus(b) {
        Some(total) => round_controlled(env, total),
        // SDM vol. 1, section 4.8.3.1: an exact zero is positive except when rounding down.
        None => F::zero(env.rounding == Rounding::Down),
    }
}

#[inline(never)]
fn special_sum<F: Format>(env: &mut Env, a: Operand, b: Operand, b_sign: bool) -> F {
    if let Some(nan) = propagate_two(env, a, b) {
        return nan;
    }
    if a.class == Class::Infinity && b.class == Class::Infinity && a.sign != b_sign {
        return invalid(env);
    }
    if (a.denormal || b.denormal) && env.raise_denormal() {
        return F::indefinite();
    }
    match (a.class, b.class) {
        (Class::Infinity, _) => F::infinity(a.sign),
        (_, Class::Infinity) => F::infinity(b_sign),
        (Class::Zero, Class::Zero) if a.sign == b_sign => F::zero(a.sign),
        (Class::Zero, Class::Zero) => F::zero(env.rounding == Rounding::Down),
        (Class::Zero, _) => round_controlled(env, Exact { sign: b_sign, ..b.into() }),
        (_, Class::Zero) => round_controlled(env, a.into()),
        _ => finite_sum(env, a, b, b_sign),
    }
}

/// The product of operands of any formats, rounded once into `F`.
#[inline]
pub fn mul_operands<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    if a.is_plain() && b.is_plain() {
        finite_product(env, a, b)
    } else {
        special_product(env, a, b)
    }
}

#[inline]
fn finite_product<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    let product = u128::from(a.significand) * u128::from(b.significand);
    let shift = (product >> 127 == 0) as u32;
    let exact = Exact {
        sign: a.sign ^ b.sign,
        exponent: a.exponent + b.exponent + 1 - shift as i32,
        significand: product << shift,
    };
    round_controlled(env, exact)
}

#[inline(never)]
fn special_product<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    if let Some(nan) = propagate_two(env, a, b) {
        return nan;
    }
    let sign = a.sign ^ b.sign;
    if matches!((a.class, b.class), (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity))
    {
        return invalid(env);
    }
    if (a.denormal || b.denormal) && env.raise_denormal() {
        return F::indefinite();
    }
    match (a.class, b.class) {
        (Class::Infinity, _) | (_, Class::Infinity) => F::infinity(sign),
        (Class::Zero, _) | (_, Class::Zero) => F::zero(sign),
        _ => finite_product(env, a, b),
    }
}

/// The quotient of operands of any formats, rounded once into `F`.
#[inline]
pub fn div_operands<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    if a.is_plain() && b.is_plain() {
        finite_quotient(env, a, b)
    } else {
        special_quotient(env, a, b)
    }
}

#[inline]
fn finite_quotient<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    let dividend = u128::from(a.significand) << 63;
    let divisor = u128::from(b.significand);
    let remainder = dividend % divisor;
    let low = remainder << 64;
    let quotient = ((dividend / divisor) << 64) | (low / divisor) | u128::from(low % divisor != 0);
    let shift = quotient.leading_zeros();
    let exact = Exact {
        sign: a.sign ^ b.sign,
        exponent: a.exponent - b.exponent - shift as i32,
        significand: quotient << shift,
    };
    round_controlled(env, exact)
}

#[inline(never)]
fn special_quotient<F: Format>(env: &mut Env, a: Operand, b: Operand) -> F {
    if let Some(nan) = propagate_two(env, a, b) {
        return nan;
    }
    let sign = a.sign ^ b.sign;
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return invalid(env),
        (Class::Finite, Class::Zero) => {
            // Division by zero comes before a denormal dividend.
            env.raise(Flags::ZE);
            return F::infinity(sign);
        }
        _ => {}
    }
    if (a.denormal || b.denormal) && env.raise_denormal() {
        return F::indefinite();
    }
    match (a.class, b.class) {
        (Class::Infinity, _) => F::infinity(sign),
        (_, Class::Infinity) | (Class::Zero, _) => F::zero(sign),
        _ => finite_quotient(env, a, b),
    }
}

/// The square root.
#[inline]
pub fn sqrt<F: Format>(env: &mut Env, a: F) -> F {
    if let Some(root) = F::host_sqrt(env, a) {
        return root;
    }
    let a = operand(env, a);
    if let Some(nan) = propagate_one(env, a) {
        return nan;
    }
    if a.class == Class::Zero {
        return F::zero(a.sign);
    }
    if a.sign {
        return invalid(env);
    }
    if a.class == Class::Infinity {
        return F::infinity(false);
    }
    if a.denormal && env.raise_denormal() {
        return F::indefinite();
    }
    let radicand = u128::from(a.significand) << (63 + (a.exponent & 1));
    let root = radicand.isqrt();
    let remainder = radicand - root * root;
    // (root + 1/2)^2 is not an integer: the next bit is set exactly if the remainder exceeds the
    // root.
    let exact = Exact {
        sign: false,
        exponent: a.exponent >> 1,
        significand: root << 64 | u128::from(remainder > root) << 63 | u128::from(remainder != 0),
    };
    round_controlled(env, exact)
}
