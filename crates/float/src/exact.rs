//! A number with a 128-bit significand: an exact intermediate result before rounding, and the
//! working precision of the transcendental functions.

use super::format::Operand;

/// A nonzero number `significand * 2^(exponent - 127)` whose significand has bit 127 set. As an
/// intermediate result bit 0 is sticky: it is set if the true value has more bits below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exact {
    pub(super) sign: bool,
    pub(super) exponent: i32,
    pub(super) significand: u128,
}

/// Shifts right; the bits that fall out are gathered in bit 0.
#[inline]
pub(super) const fn shift_right_sticky(value: u128, count: u32) -> u128 {
    if count == 0 {
        value
    } else if count < 128 {
        value >> count | (value << (128 - count) != 0) as u128
    } else {
        (value != 0) as u128
    }
}

impl From<Operand> for Exact {
    #[inline]
    fn from(x: Operand) -> Self {
        Self { sign: x.sign, exponent: x.exponent, significand: u128::from(x.significand) << 64 }
    }
}

impl Exact {
    /// Normalizes `significand * 2^(exponent - 127)`; `None` for zero.
    #[inline]
    pub(super) const fn normalized(sign: bool, exponent: i32, significand: u128) -> Option<Self> {
        if significand == 0 {
            return None;
        }
        let shift = significand.leading_zeros();
        Some(Self { sign, exponent: exponent - shift as i32, significand: significand << shift })
    }

    /// A positive integer.
    pub(super) const fn from_u64(value: u64) -> Self {
        let shift = value.leading_zeros();
        Self {
            sign: false,
            exponent: 63 - shift as i32,
            significand: (value as u128) << 64 << shift,
        }
    }

    pub(super) const fn negated(self) -> Self {
        Self { sign: !self.sign, ..self }
    }

    /// Multiplied by `2^power`.
    pub(super) const fn scaled(self, power: i32) -> Self {
        Self { exponent: self.exponent + power, ..self }
    }

    /// The sum, with a sticky bit 0; `None` if it is exactly zero.
    #[inline]
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let (big, small) =
            if (self.exponent, self.significand) >= (other.exponent, other.significand) {
                (self, other)
            } else {
                (other, self)
            };
        // One bit of headroom for the carry. The sticky bit makes the loss of bit 0 harmless: it is
        // far below the last bit of any format, and an operand that has it set is itself an
        // approximation.
        let distance = big.exponent.abs_diff(small.exponent);
        let high = shift_right_sticky(big.significand, 1);
        let low = shift_right_sticky(small.significand, distance.saturating_add(1));
        let significand = if big.sign == small.sign { high + low } else { high - low };
        Self::normalized(big.sign, big.exponent + 1, significand)
    }

    /// The product, cut to 128 bits with a sticky bit 0.
    #[inline]
    pub(super) fn times(self, other: Self) -> Self {
        let (a1, a0) = (self.significand >> 64, self.significand & LOW);
        let (b1, b0) = (other.significand >> 64, other.significand & LOW);
        let middle = a1 * b0;
        let (low, carry0) = (a0 * b0).overflowing_add(middle << 64);
        let middle2 = a0 * b1;
        let (low, carry1) = low.overflowing_add(middle2 << 64);
        let high =
            a1 * b1 + (middle >> 64) + (middle2 >> 64) + u128::from(carry0) + u128::from(carry1);
        let (high, exponent) = if high >> 127 != 0 {
            (high, self.exponent + other.exponent + 1)
        } else {
            (high << 1 | low >> 127, self.exponent + other.exponent)
        };
        Self {
            sign: self.sign ^ other.sign,
            exponent,
            significand: high | u128::from(low << 1 != 0),
        }
    }

    /// The quotient to about 126 bits, with a sticky bit 0.
    pub(super) const fn over(self, other: Self) -> Self {
        // Long division by two 64-bit digits.
        let divisor = other.significand;
        let mut remainder = self.significand;
        let first = remainder >= divisor;
        if first {
            remainder -= divisor;
        }
        let (digit, rest) = divide_digit(remainder, divisor);
        let (digit2, rest) = divide_digit(rest, divisor);
        let quotient = (digit as u128) << 64 | digit2 as u128;
        // The value is first.quotient with 128 fraction bits.
        let sticky = (rest != 0) as u128;
        let exponent = self.exponent - other.exponent;
        let sign = self.sign ^ other.sign;
        if first {
            Self { sign, exponent, significand: 1 << 127 | quotient >> 1 | quotient & 1 | sticky }
        } else {
            // The quotient of two normalized significands is above one half.
            Self { sign, exponent: exponent - 1, significand: quotient | sticky }
        }
    }

    /// Divided by a small positive integer.
    pub(super) const fn over_integer(self, divisor: u64) -> Self {
        self.over(Self::from_u64(divisor))
    }
}

const LOW: u128 = u64::MAX as u128;

/// One 64-bit digit of `remainder * 2^64 / divisor`, and what remains. `remainder < divisor`, and
/// bit 127 of the divisor is set.
const fn divide_digit(remainder: u128, divisor: u128) -> (u64, u128) {
    let (d1, d0) = (divisor >> 64, divisor & LOW);
    // Knuth's algorithm D, one digit: the estimate from the upper half is at most two too large.
    let estimate = remainder / d1;
    let mut digit = if estimate < LOW { estimate } else { LOW };
    let mut rest = remainder - digit * d1;
    while rest <= LOW && digit * d0 > rest << 64 {
        digit -= 1;
        rest += d1;
    }
    // rest * 2^64 - digit * d0 is in 0..divisor: modulo 2^128 it is exact.
    (digit as u64, (rest << 64).wrapping_sub(digit * d0))
}
