//! The host's arithmetic as a shortcut for binary32 and binary64.
//!
//! Round to nearest, operands that are normal or zero and a result clear of the ends of the normal
//! range: then every IEEE 754 host computes the same bits and the only possible exception is PE.
//! Whether the result is exact is worked out only while PE is not already sticky and masked, as it
//! is after the first few operations of any program. Anything else returns `None` and takes the
//! general path.

use super::env::{Env, Flags, Rounding};

#[inline]
fn inexact_matters(env: &Env) -> bool {
    !(env.flags.contains(Flags::PE) && env.masks.contains(Flags::PE))
}

macro_rules! host_arithmetic {
    ($float:ty, $bits:ty, $wide:ty, $precision:literal, $max:literal,
     $add:ident, $mul:ident, $div:ident, $sqrt:ident, $fma:ident, $plain:ident, $odd:ident) => {
        /// Normal or zero.
        #[inline]
        const fn $plain(x: $bits) -> bool {
            let biased = x >> ($precision - 1) & $max;
            biased != $max && (biased != 0 || x << 1 == 0)
        }

        /// The significand of a normal number without its trailing zeros.
        #[inline]
        const fn $odd(x: $bits) -> $wide {
            let significand = x & ((1 << ($precision - 1)) - 1) | 1 << ($precision - 1);
            (significand >> significand.trailing_zeros()) as $wide
        }

        #[inline]
        pub(super) fn $add(env: &mut Env, a: $bits, b: $bits) -> Option<$bits> {
            if env.rounding != Rounding::Nearest || !$plain(a) || !$plain(b) {
                return None;
            }
            let (x, y) = (<$float>::from_bits(a), <$float>::from_bits(b));
            let sum = x + y;
            let biased = sum.to_bits() >> ($precision - 1) & $max;
            if sum != 0.0 && !(2..$max - 1).contains(&biased) {
                return None;
            }
            if inexact_matters(env) {
                // Knuth's two-sum: the rounding error of a sum is a number of the format.
                let back = sum - x;
                if (x - (sum - back)) + (y - back) != 0.0 {
                    env.raise(Flags::PE);
                }
            }
            Some(sum.to_bits())
        }

        #[inline]
        pub(super) fn $mul(env: &mut Env, a: $bits, b: $bits) -> Option<$bits> {
            if env.rounding != Rounding::Nearest || !$plain(a) || !$plain(b) {
                return None;
            }
            let product = (<$float>::from_bits(a) * <$float>::from_bits(b)).to_bits();
            if a << 1 == 0 || b << 1 == 0 {
                return Some(product);
            }
            let biased = product >> ($precision - 1) & $max;
            if !(2..$max - 1).contains(&biased) {
                return None;
            }
            if inexact_matters(env) && $odd(a) * $odd(b) >> $precision != 0 {
                env.raise(Flags::PE);
            }
            Some(product)
        }

        #[inline]
        pub(super) fn $div(env: &mut Env, a: $bits, b: $bits) -> Option<$bits> {
            if env.rounding != Rounding::Nearest || !$plain(a) || !$plain(b) || b << 1 == 0 {
                return None;
            }
            let quotient = (<$float>::from_bits(a) / <$float>::from_bits(b)).to_bits();
            if a << 1 == 0 {
                return Some(quotient);
            }
            let biased = quotient >> ($precision - 1) & $max;
            if !(2..$max - 1).contains(&biased) {
                return None;
            }
            // Powers of two apart, a = b * quotient.
            if inexact_matters(env) && $odd(b) * $odd(quotient) != $odd(a) {
                env.raise(Flags::PE);
            }
            Some(quotient)
        }

        #[inline]
        pub(super) fn $sqrt(env: &mut Env, a: $bits) -> Option<$bits> {
            let positive_normal =
                a.wrapping_sub(1 << ($precision - 1)) < ($max - 1) << ($precision - 1);
            if env.rounding != Rounding::Nearest || !positive_normal {
                return None;
            }
            let root = <$float>::from_bits(a).sqrt().to_bits();
            if inexact_matters(env) && $odd(root) * $odd(root) != $odd(a) {
                env.raise(Flags::PE);
            }
            Some(root)
        }

        /// Only while it does not matter whether the result is exact.
        #[inline]
        pub(super) fn $fma(env: &Env, a: $bits, b: $bits, c: $bits) -> Option<$bits> {
            let plain = $plain(a) && $plain(b) && $plain(c);
            if env.rounding != Rounding::Nearest || !plain || inexact_matters(env) {
                return None;
            }
            let (x, y, z) =
                (<$float>::from_bits(a), <$float>::from_bits(b), <$float>::from_bits(c));
            let result = x.mul_add(y, z).to_bits();
            let biased = result >> ($precision - 1) & $max;
            (2..$max - 1).contains(&biased).then_some(result)
        }
    };
}

host_arithmetic!(
    f32, u32, u64, 24, 0xff, add_f32, mul_f32, div_f32, sqrt_f32, fma_f32, plain_f32, odd_f32
);
host_arithmetic!(
    f64, u64, u128, 53, 0x7ff, add_f64, mul_f64, div_f64, sqrt_f64, fma_f64, plain_f64, odd_f64
);
