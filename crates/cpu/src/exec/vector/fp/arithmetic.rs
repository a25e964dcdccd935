//! Addition, subtraction, multiplication, division, square root, minimum and maximum.

use cloister_float as float;

use super::shapes;
use crate::exec::table::{choose, float_rows};

float_rows! {
    Addps | Vaddps => choose(shapes!(ps, float::add)),
    Addpd | Vaddpd => choose(shapes!(pd, float::add)),
    Addss | Vaddss => choose(shapes!(ss, float::add)),
    Addsd | Vaddsd => choose(shapes!(sd, float::add)),
    Subps | Vsubps => choose(shapes!(ps, float::sub)),
    Subpd | Vsubpd => choose(shapes!(pd, float::sub)),
    Subss | Vsubss => choose(shapes!(ss, float::sub)),
    Subsd | Vsubsd => choose(shapes!(sd, float::sub)),
    Mulps | Vmulps => choose(shapes!(ps, float::mul)),
    Mulpd | Vmulpd => choose(shapes!(pd, float::mul)),
    Mulss | Vmulss => choose(shapes!(ss, float::mul)),
    Mulsd | Vmulsd => choose(shapes!(sd, float::mul)),
    Divps | Vdivps => choose(shapes!(ps, float::div)),
    Divpd | Vdivpd => choose(shapes!(pd, float::div)),
    Divss | Vdivss => choose(shapes!(ss, float::div)),
    Divsd | Vdivsd => choose(shapes!(sd, float::div)),
    Sqrtps | Vsqrtps => choose(shapes!(ps, |env, _, b| float::sqrt(env, b))),
    Sqrtpd | Vsqrtpd => choose(shapes!(pd, |env, _, b| float::sqrt(env, b))),
    Sqrtss | Vsqrtss => choose(shapes!(ss, |env, _, b: u32| float::sqrt(env, b))),
    Sqrtsd | Vsqrtsd => choose(shapes!(sd, |env, _, b: u64| float::sqrt(env, b))),
    Minps | Vminps => choose(shapes!(ps, float::min)),
    Minpd | Vminpd => choose(shapes!(pd, float::min)),
    Minss | Vminss => choose(shapes!(ss, float::min)),
    Minsd | Vminsd => choose(shapes!(sd, float::min)),
    Maxps | Vmaxps => choose(shapes!(ps, float::max)),
    Maxpd | Vmaxpd => choose(shapes!(pd, float::max)),
    Maxss | Vmaxss => choose(shapes!(ss, float::max)),
    Maxsd | Vmaxsd => choose(shapes!(sd, float::max)),
}
