//! Packed and scalar floating point, from SSE to FMA and F16C (SDM Vol. 1, 10.4, 11.4.1, 12.3,
//! 12.10, 14.4 and 14.5).

pub(crate) mod approximate;
pub(crate) mod arithmetic;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod dot;
pub(crate) mod fused;
pub(crate) mod half;
pub(crate) mod horizontal;
pub(crate) mod round;
pub(crate) mod to_integer;

use crate::exec::table::Row;

/// The rows of floating-point instructions, by family.
pub(in crate::exec) const FAMILIES: &[&[Row]] = &[
    arithmetic::ROWS,
    approximate::ROWS,
    compare::ROWS,
    convert::ROWS,
    to_integer::ROWS,
    round::ROWS,
    horizontal::ROWS,
    dot::ROWS,
    half::ROWS,
    fused::ROWS,
];

/// The four shapes of an operation `f(env, a, b)` on single and double precision elements.
macro_rules! shapes {
    (ps, $f:expr) => {
        |_, op| {
            $crate::exec::vector::form::sse_float!(op, M128, |env, a, b| {
                $crate::exec::vector::lane::zip_with::<u32, _>(env, a, b, $f)
            })
        }
    };
    (pd, $f:expr) => {
        |_, op| {
            $crate::exec::vector::form::sse_float!(op, M128, |env, a, b| {
                $crate::exec::vector::lane::zip_with::<u64, _>(env, a, b, $f)
            })
        }
    };
    (ss, $f:expr) => {
        |_, op| {
            $crate::exec::vector::form::sse_float!(op, M32, |env, a, b| {
                $crate::exec::vector::form::with_low32(a, $f(env, a[0] as u32, b[0] as u32))
            })
        }
    };
    (sd, $f:expr) => {
        |_, op| {
            $crate::exec::vector::form::sse_float!(op, M64, |env, a, b| {
                $crate::exec::vector::form::with_low(a, $f(env, a[0], b[0]))
            })
        }
    };
}
pub(super) use shapes;
