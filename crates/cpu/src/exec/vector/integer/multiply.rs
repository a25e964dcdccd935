//! Multiplication of packed integers.

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::packed;
use crate::exec::vector::lane::{Element, Lane, zip};

vector_rows! {
    Pmullw | Vpmullw => choose(packed!(|a, b| zip(a, b, u16::wrapping_mul))),
    Pmulld | Vpmulld => choose(packed!(|a, b| zip(a, b, u32::wrapping_mul))),
    Pmulhw | Vpmulhw => choose(packed!(pmulhw)),
    Pmulhuw | Vpmulhuw => choose(packed!(pmulhuw)),
    Pmulhrsw | Vpmulhrsw => choose(packed!(pmulhrsw)),
    Pmuludq | Vpmuludq => choose(packed!(pmuludq)),
    Pmuldq | Vpmuldq => choose(packed!(pmuldq)),
    Pmaddwd | Vpmaddwd => choose(packed!(pmaddwd)),
    Pmaddubsw | Vpmaddubsw => choose(packed!(pmaddubsw)),
}

/// PMULHW: the high halves of signed products.
#[inline(always)]
#[must_use]
pub(crate) fn pmulhw(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: i16, b| ((i32::from(a) * i32::from(b)) >> 16) as i16)
}

/// PMULHUW: the high halves of unsigned products.
#[inline(always)]
#[must_use]
pub(crate) fn pmulhuw(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: u16, b| ((u32::from(a) * u32::from(b)) >> 16) as u16)
}

/// PMULHRSW: signed products of fractions, rounded.
#[inline(always)]
#[must_use]
pub(crate) fn pmulhrsw(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: i16, b| ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16)
}

/// PMULUDQ: the even doublewords, unsigned.
#[inline(always)]
#[must_use]
pub(crate) fn pmuludq(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: u64, b| (a & 0xffff_ffff) * (b & 0xffff_ffff))
}

/// PMULDQ: the even doublewords, signed.
#[inline(always)]
#[must_use]
pub(crate) fn pmuldq(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: i64, b| i64::from(a as i32) * i64::from(b as i32))
}

/// PMADDWD: sums of neighbouring signed products.
#[inline(always)]
#[must_use]
pub(crate) fn pmaddwd(a: Lane, b: Lane) -> Lane {
    let (a, b) = (i16::split(a), i16::split(b));
    let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
    // Only (-8000H)^2 twice overflows, and wraps.
    i32::join(std::array::from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1))))
}

/// PMADDUBSW: saturated sums of neighbouring products of unsigned and signed bytes.
#[inline(always)]
#[must_use]
pub(crate) fn pmaddubsw(a: Lane, b: Lane) -> Lane {
    let (a, b) = (u8::split(a), i8::split(b));
    let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
    i16::join(std::array::from_fn(|i| {
        let sum = product(2 * i) + product(2 * i + 1);
        sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    }))
}
