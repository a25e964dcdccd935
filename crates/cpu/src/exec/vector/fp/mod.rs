//! Packed and scalar floating point, from SSE to FMA and F16C (SDM Vol. 1, 10.4, 11.4.1, 12.3,
//! 12.10, 14.4 and 14.5).

pub mod approximate;
pub mod arithmetic;
pub mod compare;
pub mod convert;
pub mod dot;
pub mod fused;
pub mod half;
pub mod horizontal;
pub mod round;
pub mod to_integer;

use iced_x86::Instruction;

use crate::op::{Handler, Op};

/// The handler of a floating-point instruction.
pub fn select(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    arithmetic::select(instruction, op)
        .or_else(|| approximate::select(instruction, op))
        .or_else(|| compare::select(instruction, op))
        .or_else(|| convert::select(instruction, op))
        .or_else(|| to_integer::select(instruction, op))
        .or_else(|| round::select(instruction, op))
        .or_else(|| horizontal::select(instruction, op))
        .or_else(|| dot::select(instruction, op))
        .or_else(|| half::select(instruction, op))
        .or_else(|| fused::select(instruction, op))
}

/// The four shapes of an operation `f(env, a, b)` on single and double precision elements.
macro_rules! shapes {
    (ps, $op:expr, $f:expr) => {
        $crate::exec::vector::form::sse_float!($op, M128, |env, a, b| {
            $crate::exec::vector::lane::zip_with::<u32, _>(env, a, b, $f)
        })
    };
    (pd, $op:expr, $f:expr) => {
        $crate::exec::vector::form::sse_float!($op, M128, |env, a, b| {
            $crate::exec::vector::lane::zip_with::<u64, _>(env, a, b, $f)
        })
    };
    (ss, $op:expr, $f:expr) => {
        $crate::exec::vector::form::sse_float!($op, M32, |env, a, b| {
            $crate::exec::vector::form::with_low32(a, $f(env, a[0] as u32, b[0] as u32))
        })
    };
    (sd, $op:expr, $f:expr) => {
        $crate::exec::vector::form::sse_float!($op, M64, |env, a, b| {
            $crate::exec::vector::form::with_low(a, $f(env, a[0], b[0]))
        })
    };
}
pub(super) use shapes;
