//! Addition, subtraction, multiplication, division, square root, minimum and maximum.

use cloister_float as float;
use iced_x86::{Instruction, Mnemonic};

use super::shapes;
use crate::op::{Handler, Op};

/// The handler of an arithmetic instruction.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Addpd, Addps, Addsd, Addss, Divpd, Divps, Divsd, Divss, Maxpd, Maxps, Maxsd, Maxss, Minpd,
        Minps, Minsd, Minss, Mulpd, Mulps, Mulsd, Mulss, Sqrtpd, Sqrtps, Sqrtsd, Sqrtss, Subpd,
        Subps, Subsd, Subss, Vaddpd, Vaddps, Vaddsd, Vaddss, Vdivpd, Vdivps, Vdivsd, Vdivss,
        Vmaxpd, Vmaxps, Vmaxsd, Vmaxss, Vminpd, Vminps, Vminsd, Vminss, Vmulpd, Vmulps, Vmulsd,
        Vmulss, Vsqrtpd, Vsqrtps, Vsqrtsd, Vsqrtss, Vsubpd, Vsubps, Vsubsd, Vsubss,
    };
    Some(match instruction.mnemonic() {
        Addps | Vaddps => shapes!(ps, op, float::add),
        Addpd | Vaddpd => shapes!(pd, op, float::add),
        Addss | Vaddss => shapes!(ss, op, float::add),
        Addsd | Vaddsd => shapes!(sd, op, float::add),
        Subps | Vsubps => shapes!(ps, op, float::sub),
        Subpd | Vsubpd => shapes!(pd, op, float::sub),
        Subss | Vsubss => shapes!(ss, op, float::sub),
        Subsd | Vsubsd => shapes!(sd, op, float::sub),
        Mulps | Vmulps => shapes!(ps, op, float::mul),
        Mulpd | Vmulpd => shapes!(pd, op, float::mul),
        Mulss | Vmulss => shapes!(ss, op, float::mul),
        Mulsd | Vmulsd => shapes!(sd, op, float::mul),
        Divps | Vdivps => shapes!(ps, op, float::div),
        Divpd | Vdivpd => shapes!(pd, op, float::div),
        Divss | Vdivss => shapes!(ss, op, float::div),
        Divsd | Vdivsd => shapes!(sd, op, float::div),
        Sqrtps | Vsqrtps => shapes!(ps, op, |env, _, b| float::sqrt(env, b)),
        Sqrtpd | Vsqrtpd => shapes!(pd, op, |env, _, b| float::sqrt(env, b)),
        Sqrtss | Vsqrtss => shapes!(ss, op, |env, _, b: u32| float::sqrt(env, b)),
        Sqrtsd | Vsqrtsd => shapes!(sd, op, |env, _, b: u64| float::sqrt(env, b)),
        Minps | Vminps => shapes!(ps, op, float::min),
        Minpd | Vminpd => shapes!(pd, op, float::min),
        Minss | Vminss => shapes!(ss, op, float::min),
        Minsd | Vminsd => shapes!(sd, op, float::min),
        Maxps | Vmaxps => shapes!(ps, op, float::max),
        Maxpd | Vmaxpd => shapes!(pd, op, float::max),
        Maxss | Vmaxss => shapes!(ss, op, float::max),
        Maxsd | Vmaxsd => shapes!(sd, op, float::max),
        _ => return None,
    })
}
