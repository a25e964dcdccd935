//! ROUNDPS and its forms (SDM Vol. 2B, ROUNDPD).

use cloister_float::{Env, Format, Rounding, round_to_integral};

use crate::exec::table::{choose, float_rows};
use crate::exec::vector::form::{sse_float_imm, with_low, with_low32};
use crate::exec::vector::lane::{Lane, map_with};

float_rows! {
    Roundps | Vroundps => choose(|_, op| {
        sse_float_imm!(op, M128, |env: &mut Env, _, b, imm| {
            map_with(env, b, |env, x: u32| round(env, x, imm))
        })
    }),
    Roundpd | Vroundpd => choose(|_, op| {
        sse_float_imm!(op, M128, |env: &mut Env, _, b, imm| {
            map_with(env, b, |env, x: u64| round(env, x, imm))
        })
    }),
    Roundss | Vroundss => choose(|_, op| {
        sse_float_imm!(op, M32, |env: &mut Env, a, b: Lane, imm| {
            with_low32(a, round(env, b[0] as u32, imm))
        })
    }),
    Roundsd | Vroundsd => choose(|_, op| {
        sse_float_imm!(op, M64, |env: &mut Env, a, b: Lane, imm| {
            with_low(a, round(env, b[0], imm))
        })
    }),
}

/// Bits 1:0 of the immediate are the rounding control unless bit 2 chooses MXCSR's; bit 3
/// suppresses the precision exception (SDM Vol. 2B, figure 4-24).
#[inline(always)]
pub(crate) fn round<F: Format>(env: &mut Env, x: F, imm: u8) -> F {
    let rounding = if imm & 4 != 0 { env.rounding } else { Rounding::from_bits(u32::from(imm)) };
    round_to_integral(env, x, rounding, imm & 8 != 0)
}
