//! Fused multiply-add.

use super::arith::operand;
use super::env::{Env, Flags, Rounding};
use super::exact::Exact;
use super::format::{Class, Format, Operand};
use super::nan::invalid;
use super::round::round;

/// `a * b + c` with one rounding, for binary32 and binary64.
///
/// `negate_product` and `negate_addend` invert the sign of `a * b` and of `c` without touching a
/// NaN that is propagated (SDM vol. 1, section 14.5.2). The first NaN in the order `a`, `b`, `c` is
/// the one that is returned, so the caller passes the operands in the order of that table.
pub fn fma<F: Format>(
    env: &mut Env,
    a: F,
    b: F,
    c: F,
    negate_product: bool,
    negate_addend: bool,
) -> F {
    let signed = |x: F, negate: bool| if negate { x.negate() } else { x };
    let (x, z) = (signed(a, negate_product), signed(c, negate_addend));
    if let Some(result) = F::host_fma(env, x, b, z) {
        return result;
    }
    let (a, b, c) = (operand(env, a), operand(env, b), operand(env, c));
    if let Some(nan) = propagate(env, [a, b, c]) {
        return nan;
    }
    let product_sign = a.sign ^ b.sign ^ negate_product;
    let addend_sign = c.sign ^ negate_addend;
    let infinite_product = a.class == Class::Infinity || b.class == Class::Infinity;
    let zero_product = a.class == Class::Zero || b.class == Class::Zero;
    let opposed = c.class == Class::Infinity && product_sign != addend_sign;
    if infinite_product && (zero_product || opposed) {
        return invalid(env);
    }
    if (a.denormal || b.denormal || c.denormal) && env.raise_denormal() {
        return F::indefinite();
    }
    if infinite_product {
        return F::infinity(product_sign);
    }
    if c.class == Class::Infinity {
        return F::infinity(addend_sign);
    }
    let cancelled = F::zero(env.rounding == Rounding::Down);
    let addend = Exact { sign: addend_sign, ..c.into() };
    match (zero_product, c.class == Class::Zero) {
        (true, true) if product_sign == addend_sign => F::zero(addend_sign),
        (true, true) => cancelled,
        (true, false) => round(env, addend),
        (false, c_is_zero) => {
            let product = product(a, b, product_sign);
            if c_is_zero {
                return round(env, product);
            }
            match product.plus(addend) {
                Some(total) => round(env, total),
                None => cancelled,
            }
        }
    }
}

/// Exact, with zeros below: 2 * 53 bits fit 128.
fn product(a: Operand, b: Operand, sign: bool) -> Exact {
    let product = u128::from(a.significand) * u128::from(b.significand);
    let shift = product.leading_zeros();
    Exact {
        sign,
        exponent: a.exponent + b.exponent + 1 - shift as i32,
        significand: product << shift,
    }
}

fn propagate<F: Format>(env: &mut Env, operands: [Operand; 3]) -> Option<F> {
    if operands.iter().any(|x| x.class == Class::SignalingNan) {
        env.raise(Flags::IE);
    }
    let first = operands.iter().find(|x| x.is_nan())?;
    Some(F::nan(first.sign, first.significand))
}
