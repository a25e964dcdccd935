//! Packed BCD integers of 18 digits (SDM vol. 1, section 4.7).

use super::convert::round_magnitude;
use super::env::{Env, Flags};
use super::format::{Class, F80, Format, Operand};

const LIMIT: u64 = 1_000_000_000_000_000_000;

/// Packed BCD indefinite, the masked response of FBSTP to an invalid operation.
pub const BCD_INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

/// FBLD: exact. A nibble above 9, which the SDM leaves undefined, counts with its binary value.
pub fn bcd_to_f80(bytes: [u8; 10]) -> F80 {
    let sign = bytes[9] & 0x80 != 0;
    let value = bytes[..9].iter().rev().fold(0u64, |value, &byte| {
        let pair = u64::from(byte >> 4) * 10 + u64::from(byte & 15);
        value.wrapping_mul(100).wrapping_add(pair)
    });
    if value == 0 {
        return F80::zero(sign);
    }
    let shift = value.leading_zeros();
    let biased = (63 - shift as i32 + F80::MAX_EXPONENT) as u32;
    F80::assemble(sign, biased, value << shift)
}

/// FBSTP: rounded by the environment's rounding control; packed BCD indefinite and IE if it needs
/// more than 18 digits or is not a number.
pub fn f80_to_bcd(env: &mut Env, x: F80) -> [u8; 10] {
    let x: Operand = x.unpack();
    let magnitude = match x.class {
        Class::Zero => 0,
        Class::Finite => match round_magnitude(x, env.rounding) {
            Some(integer) if integer.magnitude < LIMIT => {
                env.rounded_up = integer.up;
                if integer.inexact {
                    env.raise(Flags::PE);
                }
                integer.magnitude
            }
            _ => {
                env.raise(Flags::IE);
                return BCD_INDEFINITE;
            }
        },
        _ => {
            env.raise(Flags::IE);
            return BCD_INDEFINITE;
        }
    };
    let mut bytes = [0; 10];
    let mut rest = magnitude;
    for byte in &mut bytes[..9] {
        let pair = (rest % 100) as u8;
        *byte = ((pair / 10) << 4) | (pair % 10);
        rest /= 100;
    }
    bytes[9] = u8::from(x.sign) << 7;
    bytes
}
