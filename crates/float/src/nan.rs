//! Which NaN an operation returns (SDM vol. 1, section 4.8.3.5 and table 4-7).

use super::env::{Env, Flags};
use super::format::{Class, Format, Operand};

/// Raises IE and returns the indefinite QNaN.
pub(super) fn invalid<F: Format>(env: &mut Env) -> F {
    env.raise(Flags::IE);
    F::indefinite()
}

fn quieted<F: Format>(x: Operand) -> F {
    F::nan(x.sign, x.significand)
}

/// The result of a one-operand instruction on a NaN or unsupported operand.
pub(super) fn propagate_one<F: Format>(env: &mut Env, a: Operand) -> Option<F> {
    match a.class {
        Class::Unsupported => Some(invalid(env)),
        Class::SignalingNan => {
            env.raise(Flags::IE);
            Some(quieted(a))
        }
        Class::QuietNan => Some(quieted(a)),
        _ => None,
    }
}

/// The result of a two-operand instruction of which an operand is a NaN or unsupported.
pub(super) fn propagate_two<F: Format>(env: &mut Env, a: Operand, b: Operand) -> Option<F> {
    if a.class == Class::Unsupported || b.class == Class::Unsupported {
        return Some(invalid(env));
    }
    if a.class == Class::SignalingNan || b.class == Class::SignalingNan {
        env.raise(Flags::IE);
    }
    match (a.is_nan(), b.is_nan()) {
        (false, false) => None,
        (true, false) => Some(quieted(a)),
        (false, true) => Some(quieted(b)),
        (true, true) if F::X87 => Some(quieted(larger(a, b))),
        (true, true) => Some(quieted(a)),
    }
}

/// The x87 rule for two NaNs: a quiet one before a signalling one, then the larger significand,
/// then the positive one.
fn larger(a: Operand, b: Operand) -> Operand {
    let key = |x: Operand| (x.class == Class::QuietNan, x.significand, !x.sign);
    if key(b) > key(a) { b } else { a }
}
