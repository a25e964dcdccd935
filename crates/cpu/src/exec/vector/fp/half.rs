//! F16C: VCVTPH2PS and VCVTPS2PH, conversions between single and half precision (SDM Vol. 1,
//! 14.4).

use cloister_float::{Env, Flags, Rounding, convert};

use crate::cpu::Cpu;
use crate::exec::table::{always, choose, float_rows};
use crate::exec::vector::form::{sse_float_widen, value_of};
use crate::exec::vector::lane::{Element, Lane};
use crate::exit::Exec;
use crate::op::{NO_MEMORY, Op, VEX_256};

float_rows! {
    Vcvtph2ps => choose(|_, op| sse_float_widen!(op, vcvtph2ps)),
    Vcvtps2ph => always(handle_vcvtps2ph),
}

/// VCVTPH2PS: four elements. Denormals are numbers like others, whatever DAZ and DE say.
#[inline(always)]
pub(crate) fn vcvtph2ps(env: &mut Env, b: u64) -> Lane {
    let mut inner = Env { daz: false, masks: env.masks | Flags::DE, ..*env };
    let result = std::array::from_fn(|i| convert::<u16, u32>(&mut inner, (b >> (16 * i)) as u16));
    let denormal = env.flags & Flags::DE;
    env.flags = inner.flags.difference(Flags::DE) | denormal;
    env.pending |= inner.pending;
    u32::join(result)
}

/// VCVTPS2PH: four elements. Bits 1:0 of the immediate are the rounding control unless bit 2
/// chooses MXCSR's; FTZ does not count.
#[inline(always)]
pub(crate) fn vcvtps2ph(env: &mut Env, b: Lane, imm: u8) -> u64 {
    let rounding = if imm & 4 != 0 { env.rounding } else { Rounding::from_bits(u32::from(imm)) };
    let mut inner = Env { ftz: false, rounding, ..*env };
    let result = u32::split(b).iter().rev().fold(0, |result, &x| {
        let denormal = x & 0x7f80_0000 == 0 && x & 0x007f_ffff != 0;
        if denormal && !inner.daz {
            // Processors say so even where underflow is unmasked and the significand fits.
            inner.raise(Flags::PE);
        }
        result << 16 | u64::from(convert::<u32, u16>(&mut inner, x))
    });
    (env.flags, env.pending) = (inner.flags, inner.pending);
    result
}

extern "C" fn handle_vcvtps2ph(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_avx()?;
    let imm = op.imm as u8;
    let [low, high] = cpu.arch.vector.ymm(op.src);
    let wide = op.vex == VEX_256;
    let result = cpu.simd(|env| {
        // One after the other: the immediate's rounding holds for both.
        let low = vcvtps2ph(env, low, imm);
        [low, if wide { vcvtps2ph(env, high, imm) } else { 0 }]
    })?;
    match (op.mem_operand == NO_MEMORY, wide) {
        (true, _) => {
            cpu.set_vector_dst(op, result);
            Ok(())
        }
        (false, true) => cpu.store_operand(op, value_of(result)),
        (false, false) => cpu.store_operand(op, result[0]),
    }
}
