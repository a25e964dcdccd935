//! The power series of the transcendental functions, in 128-bit working precision.
//!
//! Each is accurate to better than 2^-115 relative, so that rounding its value to 64 bits gives the
//! correctly rounded result except where the true value lies within 2^-50 of a last place of a
//! rounding boundary.

use std::sync::LazyLock;

use super::exact::Exact;

/// The number with the given leading 128 bits.
const fn constant(exponent: i32, significand: u128) -> Exact {
    Exact { sign: false, exponent, significand }
}

pub(super) const ONE: Exact = constant(0, 1 << 127);
/// The leading 128 bits of pi.
pub(super) const PI: Exact = constant(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
/// The leading 128 bits of ln 2.
const LN_2: Exact = constant(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);

const RECIPROCAL_COUNT: usize = 80;

/// 1/n, for n above zero.
static RECIPROCALS: [Exact; RECIPROCAL_COUNT] = {
    let mut table = [ONE; RECIPROCAL_COUNT];
    let mut n = 1;
    while n < RECIPROCAL_COUNT {
        table[n] = ONE.over_integer(n as u64);
        n += 1;
    }
    table
};

/// `a + b`, where b is too small to cancel a.
fn sum(a: Exact, b: Exact) -> Exact {
    a.plus(b).unwrap_or(a)
}

/// The terms after which a series, whose next term is smaller by a factor `2^gain` at least, has no
/// effect.
const fn terms(gain: i32, most: usize) -> usize {
    let needed = 130 / (if gain < 1 { 1 } else { gain }) as usize + 2;
    if needed < most { needed } else { most }
}

/// `1 - q/(a(a+1)) * (1 - q/((a+2)(a+3)) * ...)`, the series that sine (a = 2) and cosine (a = 1)
/// share, `q = x^2`.
fn alternating_factorials(q: Exact, a: usize) -> Exact {
    // q < 0.62: 2^-130 is passed at 17 terms at the latest.
    let q = q.negated();
    let count = terms(-q.exponent - 1, 17);
    let mut value = ONE;
    for k in (0..count).rev() {
        let n = a + 2 * k;
        let factor = q.times(RECIPROCALS[n]).times(RECIPROCALS[n + 1]);
        value = sum(ONE, factor.times(value));
    }
    value
}

/// The sine of `|x| <= pi/4`.
pub(super) fn sin(x: Exact) -> Exact {
    x.times(alternating_factorials(x.times(x), 2))
}

/// The cosine of `|x| <= pi/4`.
pub(super) fn cos(x: Exact) -> Exact {
    alternating_factorials(x.times(x), 1)
}

/// `x * (1 + q/3 + q^2/5 + ...)`: the inverse hyperbolic tangent for `q = x^2`, the arctangent for
/// `q = -x^2`; `|x| <= 0.172`.
fn odd_reciprocals(x: Exact, q: Exact) -> Exact {
    let count = terms(-q.exponent - 1, 36);
    let mut value = RECIPROCALS[2 * count + 1];
    for k in (0..count).rev() {
        value = sum(RECIPROCALS[2 * k + 1], q.times(value));
    }
    x.times(value)
}

/// atan(k/16) for k from 1 to 16, each from the one before by the addition theorem.
static ARCTANGENTS: LazyLock<[Exact; 17]> = LazyLock::new(|| {
    let mut table = [ONE; 17];
    for k in 1..=16u64 {
        let step = Exact::from_u64(16).over_integer(256 + k * (k - 1));
        let step = odd_reciprocals(step, step.times(step).negated());
        table[k as usize] = if k == 1 { step } else { sum(table[k as usize - 1], step) };
    }
    table
});

/// The arctangent of `0 < x <= 1`.
pub(super) fn atan(x: Exact) -> Exact {
    // The nearest sixteenth.
    let k =
        if x.exponent < -5 { 0 } else { ((x.significand >> 120 >> (-x.exponent)) as u64 + 4) >> 3 };
    if k == 0 {
        return odd_reciprocals(x, x.times(x).negated());
    }
    let near = Exact::from_u64(k).scaled(-4);
    let table = ARCTANGENTS[k as usize];
    match x.plus(near.negated()) {
        None => table,
        Some(difference) => {
            let rest = difference.over(sum(ONE, x.times(near)));
            sum(table, odd_reciprocals(rest, rest.times(rest).negated()))
        }
    }
}

/// `log2((1 + s) / (1 - s))` for `|s| <= 0.172`.
pub(super) fn log2_ratio(s: Exact) -> Exact {
    odd_reciprocals(s, s.times(s)).scaled(1).over(LN_2)
}

/// `2^x - 1` for `|x| <= 1`.
pub(super) fn exp2_minus_1(x: Exact) -> Exact {
    let t = x.times(LN_2);
    let count = terms(-t.exponent - 1, 35);
    let mut value = ONE;
    for k in (2..=count + 1).rev() {
        value = sum(ONE, t.times(RECIPROCALS[k]).times(value));
    }
    t.times(value)
}
