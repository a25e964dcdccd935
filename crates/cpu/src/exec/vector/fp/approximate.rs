//! RCPPS, RSQRTPS and their scalar forms: approximations within a relative error of 1.5 * 2^-12
//! that heed neither MXCSR nor its masks (SDM Vol. 2B, RCPPS, RSQRTPS).

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{sse, with_low32};
use crate::exec::vector::lane::map;

vector_rows! {
    Rcpps | Vrcpps => choose(|_, op| sse!(op, M128, |_, b| map(b, reciprocal))),
    Rcpss | Vrcpss => choose(|_, op| sse!(op, M32, |a, b| with_low32(a, reciprocal(b[0] as u32)))),
    Rsqrtps | Vrsqrtps => choose(|_, op| sse!(op, M128, |_, b| map(b, reciprocal_root))),
    Rsqrtss | Vrsqrtss => choose(|_, op| {
        sse!(op, M32, |a, b| with_low32(a, reciprocal_root(b[0] as u32)))
    }),
}

const SIGN: u32 = 1 << 31;
const EXPONENT: u32 = 0xff << 23;
const QUIET: u32 = 1 << 22;
const INDEFINITE: u32 = 0xffc0_0000;
/// The significand bits that an approximation has.
const KEPT: u32 = !0xfff;

fn is_nan(x: u32) -> bool {
    x & !SIGN > EXPONENT
}

/// Zero or denormal: denormals count as zeros.
fn is_tiny(x: u32) -> bool {
    x & EXPONENT == 0
}

/// Rounds a finite positive significand to the bits that are kept.
fn shorten(x: f32) -> u32 {
    x.to_bits().wrapping_add(0x800) & KEPT
}

/// RCPSS of one element.
#[must_use]
pub(crate) fn reciprocal(x: u32) -> u32 {
    let sign = x & SIGN;
    if is_nan(x) {
        return x | QUIET;
    }
    if is_tiny(x) {
        return sign | EXPONENT;
    }
    if x & EXPONENT == EXPONENT {
        return sign;
    }
    // Tiny results are zeros; that of 2^126 may count as tiny.
    if x & !SIGN >= 0x7e80_0000 {
        return sign;
    }
    sign | shorten(1.0 / f32::from_bits(x & !SIGN))
}

/// RSQRTSS of one element.
#[must_use]
pub(crate) fn reciprocal_root(x: u32) -> u32 {
    if is_nan(x) {
        return x | QUIET;
    }
    if is_tiny(x) {
        return x & SIGN | EXPONENT;
    }
    if x & SIGN != 0 {
        return INDEFINITE;
    }
    if x & EXPONENT == EXPONENT {
        return 0;
    }
    shorten((1.0 / f64::from(f32::from_bits(x)).sqrt()) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approximations_stay_within_the_documented_error() {
        for bits in (0x0080_0000u32..0x7e00_0000).step_by(99_991) {
            let x = f64::from(f32::from_bits(bits));
            let reciprocal = f64::from(f32::from_bits(reciprocal(bits)));
            let root = f64::from(f32::from_bits(reciprocal_root(bits)));
            assert!((reciprocal * x - 1.0).abs() <= 1.5 / 4096.0, "1/{x}");
            assert!((root * x.sqrt() - 1.0).abs() <= 1.5 / 4096.0, "1/sqrt({x})");
        }
    }

    #[test]
    fn special_operands_give_what_the_manual_says() {
        assert_eq!(reciprocal(SIGN), 0xff80_0000);
        assert_eq!(reciprocal(0x7f80_0000), 0);
        assert_eq!(reciprocal(0x7f80_0001), 0x7fc0_0001);
        assert_eq!(reciprocal_root(0xbf80_0000), INDEFINITE);
        assert_eq!(reciprocal_root(SIGN | 1), 0xff80_0000);
    }
}
