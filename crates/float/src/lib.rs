//! IEEE 754 arithmetic in software with the semantics of x86.
//!
//! Every operation takes an [`Env`], the image of MXCSR or of the x87 control and status words:
//! rounding control, masks, denormals-are-zero and flush-to-zero, and the exception flags that the
//! operation raises. Values are the architecture's encodings: `u32` is binary32, `u64` is binary64
//! and [`F80`] the x87 double extended format. The rules are those of the SDM, volume 1, chapters
//! 4, 8 and 11: tininess is detected after rounding, SSE propagates the first NaN operand and the
//! x87 the one with the larger significand, a denormal operand raises DE only if neither a NaN nor
//! an invalid operation nor a division by zero has priority over it (sections 8.7 and 11.5).
//!
//! The host's floating point serves only as a shortcut for operations whose result it must share
//! bit by bit.
//!
//! ```
//! use cloister_float::{self as float, Env, Flags};
//!
//! let mut env = Env::sse(0x1f80);
//! let third = float::div(&mut env, 1f64.to_bits(), 3f64.to_bits());
//! assert_eq!(f64::from_bits(third), 1.0 / 3.0);
//! assert_eq!(env.flags, Flags::PE);
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]
#![cfg_attr(
    not(test),
    expect(
        clippy::cast_possible_truncation,
        reason = "parts of a number are narrower than what they are computed in"
    )
)]

mod arith;
mod bcd;
mod compare;
mod convert;
mod env;
mod exact;
mod exponential;
mod fast;
mod format;
mod fused;
mod integral;
mod nan;
mod remainder;
mod round;
mod scale;
mod series;
mod trigonometric;

pub use arith::{add, add_operands, div, div_operands, mul, mul_operands, sqrt, sub, sub_operands};
pub use bcd::{BCD_INDEFINITE, bcd_to_f80, f80_to_bcd};
pub use compare::{Comparison, Relation, compare, compare_operands, max, min};
pub use convert::{convert, from_i32, from_i64, to_i16, to_i32, to_i64, to_integer};
pub use env::{Env, Flags, Precision, Rounding};
pub use exponential::{f2xm1, fyl2x, fyl2xp1};
pub use format::{Class, F80, Format, Operand};
pub use fused::fma;
pub use integral::round_to_integral;
pub use remainder::{Remainder, RemainderKind, remainder};
pub use scale::{extract, scale};
pub use trigonometric::{fcos, fpatan, fptan, fsin, fsincos};
