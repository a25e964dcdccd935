//! ADDSUBPS, HADDPS, HSUBPS and their double-precision forms (SDM Vol. 1, 12.3.3 and 12.3.4).

use cloister_float::{Env, add, sub};

use crate::exec::table::{choose, float_rows};
use crate::exec::vector::form::sse_float;
use crate::exec::vector::lane::{Element, Lane};

float_rows! {
    Addsubps | Vaddsubps => choose(|_, op| sse_float!(op, M128, addsubps)),
    Addsubpd | Vaddsubpd => choose(|_, op| {
        sse_float!(op, M128, |env, a, b| { [sub(env, a[0], b[0]), add(env, a[1], b[1])] })
    }),
    Haddps | Vhaddps => choose(|_, op| sse_float!(op, M128, |env, a, b| pairs(env, a, b, add))),
    Hsubps | Vhsubps => choose(|_, op| sse_float!(op, M128, |env, a, b| pairs(env, a, b, sub))),
    Haddpd | Vhaddpd => choose(|_, op| {
        sse_float!(op, M128, |env, a, b| [add(env, a[0], a[1]), add(env, b[0], b[1])])
    }),
    Hsubpd | Vhsubpd => choose(|_, op| {
        sse_float!(op, M128, |env, a, b| [sub(env, a[0], a[1]), sub(env, b[0], b[1])])
    }),
}

/// ADDSUBPS: even elements subtracted, odd ones added.
#[inline(always)]
pub(crate) fn addsubps(env: &mut Env, a: Lane, b: Lane) -> Lane {
    let (a, b) = (u32::split(a), u32::split(b));
    u32::join(std::array::from_fn(|i| {
        if i % 2 == 0 { sub(env, a[i], b[i]) } else { add(env, a[i], b[i]) }
    }))
}

/// HADDPS and HSUBPS: neighbours of `a`, then of `b`.
#[inline(always)]
pub(crate) fn pairs(
    env: &mut Env,
    a: Lane,
    b: Lane,
    f: impl Fn(&mut Env, u32, u32) -> u32,
) -> Lane {
    let (a, b) = (u32::split(a), u32::split(b));
    u32::join([f(env, a[0], a[1]), f(env, a[2], a[3]), f(env, b[0], b[1]), f(env, b[2], b[3])])
}
