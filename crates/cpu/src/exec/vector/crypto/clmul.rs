//! PCLMULQDQ: carry-less multiplication (SDM Vol. 2B).

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::sse_imm;
use crate::exec::vector::lane::Lane;

vector_rows! {
    Pclmulqdq | Vpclmulqdq => choose(|_, op| sse_imm!(op, M128, pclmulqdq)),
}

/// PCLMULQDQ: bit 0 of the immediate picks the quadword of `a`, bit 4 that of `b`.
#[must_use]
pub(crate) fn pclmulqdq(a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b) = (a[usize::from(imm & 1)], b[usize::from(imm >> 4 & 1)]);
    // Multiples of `a` by all polynomials of degree 3, then four bits of `b` at a time.
    let mut multiples = [0u128; 16];
    for i in 1..16 {
        multiples[i] = multiples[i / 2] << 1 ^ if i % 2 != 0 { u128::from(a) } else { 0 };
    }
    let product = (0..16)
        .rev()
        .fold(0u128, |product, digit| product << 4 ^ multiples[(b >> (4 * digit) & 15) as usize]);
    [product as u64, (product >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_white_paper() {
        // Gueron and Kounavis, Intel white paper 323640, PCLMULQDQ example.
        let a = [0x6331_8f73_60ca_f26f, 0x7b5b_5465_7374_566f];
        let b = [0x5d47_5365_7922_1f6e, 0x4869_2853_6861_7929];
        let slow = |a: u64, b: u64| {
            (0..64).fold(0u128, |p, i| p ^ if b >> i & 1 != 0 { u128::from(a) << i } else { 0 })
        };
        for (imm, x, y) in
            [(0, a[0], b[0]), (1, a[1], b[0]), (0x10, a[0], b[1]), (0x11, a[1], b[1])]
        {
            let expected = slow(x, y);
            assert_eq!(pclmulqdq(a, b, imm), [expected as u64, (expected >> 64) as u64]);
        }
    }

    #[test]
    fn all_ones_squared_has_every_other_bit() {
        assert_eq!(pclmulqdq([!0, 0], [!0, 0], 0), [0x5555_5555_5555_5555; 2]);
    }
}
