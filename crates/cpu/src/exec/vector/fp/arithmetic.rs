//! Addition, subtraction, multiplication, division, square root, minimum and maximum.

use iced_x86::{Instruction, Mnemonic};

use super::shapes;
use crate::float;
use crate::op::{Handler, Op};

/// The handler of an arithmetic instruction.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Addpd, Addps, Addsd, Addss, Divpd, Divps, Divsd, Divss, Maxpd, Maxps, Maxsd, Maxss, Minpd,
        Minps, Minsd, Minss, Mulpd, Mulps, Mulsd, Mulss, Sqrtpd, Sqrtps, Sqrtsd, Sqrtss, Subpd,
        Subps, Subsd, Subss,
    };
    Some(match instruction.mnemonic() {
        Addps => shapes!(ps, op, float::add),
        Addpd => shapes!(pd, op, float::add),
        Addss => shapes!(ss, op, float::add),
        Addsd => shapes!(sd, op, float::add),
        Subps => shapes!(ps, op, float::sub),
        Subpd => shapes!(pd, op, float::sub),
        Subss => shapes!(ss, op, float::sub),
        Subsd => shapes!(sd, op, float::sub),
        Mulps => shapes!(ps, op, float::mul),
        Mulpd => shapes!(pd, op, float::mul),
        Mulss => shapes!(ss, op, float::mul),
        Mulsd => shapes!(sd, op, float::mul),
        Divps => shapes!(ps, op, float::div),
        Divpd => shapes!(pd, op, float::div),
        Divss => shapes!(ss, op, float::div),
        Divsd => shapes!(sd, op, float::div),
        Sqrtps => shapes!(ps, op, |env, _, b| float::sqrt(env, b)),
        Sqrtpd => shapes!(pd, op, |env, _, b| float::sqrt(env, b)),
        Sqrtss => shapes!(ss, op, |env, _, b: u32| float::sqrt(env, b)),
        Sqrtsd => shapes!(sd, op, |env, _, b: u64| float::sqrt(env, b)),
        Minps => shapes!(ps, op, float::min),
        Minpd => shapes!(pd, op, float::min),
        Minss => shapes!(ss, op, float::min),
        Minsd => shapes!(sd, op, float::min),
        Maxps => shapes!(ps, op, float::max),
        Maxpd => shapes!(pd, op, float::max),
        Maxss => shapes!(ss, op, float::max),
        Maxsd => shapes!(sd, op, float::max),
        _ => return None,
    })
}
