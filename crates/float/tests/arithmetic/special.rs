//! Responses that no oracle gives: unmasked exceptions and encodings of their own.

use cloister_float::{self as float, Env, F80, Flags};

#[test]
fn unmasked_x87_overflow_scales_the_result_down() {
    // All masked but OE, extended precision.
    let mut env = Env::x87(0x0337);
    let largest = F80::new(0x7ffe, u64::MAX);

    let product = float::mul(&mut env, largest, F80::new(0x4000, 1 << 63));

    assert_eq!(product, F80::new(0x7fff - 24576, u64::MAX));
    assert_eq!((env.flags, env.pending), (Flags::OE, Flags::OE));
}

#[test]
fn unmasked_x87_underflow_scales_an_exact_result_up() {
    let mut env = Env::x87(0x032f);
    let smallest_normal = F80::new(1, 1 << 63);

    let half = float::mul(&mut env, smallest_normal, F80::new(0x3ffe, 1 << 63));

    assert_eq!(half, F80::new(24576, 1 << 63));
    assert_eq!(env.pending, Flags::UE);
}

#[test]
fn unmasked_denormal_operand_hides_the_exceptions_of_the_result() {
    // DM clear: the product would be inexact and tiny.
    let mut env = Env::sse(0x1f80 & !0x100);

    float::mul(&mut env, 1u64, 0.3f64.to_bits());

    assert_eq!((env.flags, env.pending), (Flags::DE, Flags::DE));
}

#[test]
fn bcd_keeps_eighteen_digits_and_the_sign() {
    let mut env = Env::x87(0x037f);
    let bytes = [0x78, 0x56, 0x34, 0x12, 0x90, 0x78, 0x56, 0x34, 0x12, 0x80];

    let stored = float::f80_to_bcd(&mut env, float::bcd_to_f80(bytes));

    assert_eq!((stored, env.flags), (bytes, Flags::empty()));
}
