//! Conversions to floating point (SDM Vol. 1, 11.4.1.6).

use cloister_float::{Env, convert, from_i32, from_i64};
use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::table::{choose, float_rows};
use crate::exec::vector::form::{
    by_memory, sse_float, sse_float_narrow, sse_float_widen, with_low, with_low32,
};
use crate::exec::vector::lane::{Lane, map_with};
use crate::exit::Exec;
use crate::mem::Int;
use crate::op::{Handler, NO_MEMORY, Op};

float_rows! {
    Cvtss2sd | Vcvtss2sd => choose(|_, op| {
        sse_float!(op, M32, |env, a, b| with_low(a, convert(env, b[0] as u32)))
    }),
    Cvtsd2ss | Vcvtsd2ss => choose(|_, op| {
        sse_float!(op, M64, |env, a, b| with_low32(a, convert(env, b[0])))
    }),
    Cvtps2pd | Vcvtps2pd => choose(|_, op| sse_float_widen!(op, cvtps2pd)),
    Cvtpd2ps | Vcvtpd2ps => choose(|_, op| sse_float_narrow!(op, cvtpd2ps)),
    Cvtdq2ps | Vcvtdq2ps => choose(|_, op| {
        sse_float!(op, M128, |env, _, b| map_with(env, b, |env, x: u32| from_i32(env, x as i32)))
    }),
    Cvtdq2pd | Vcvtdq2pd => choose(|_, op| sse_float_widen!(op, cvtdq2pd)),
    Cvtpi2ps => choose(|_, op| by_memory!(op, cvtpi2ps)),
    Cvtpi2pd => choose(|_, op| match op.mem_operand {
        NO_MEMORY => cvtpi2pd_register as Handler,
        _ => cvtpi2pd_memory,
    }),
    Cvtsi2ss | Vcvtsi2ss => choose(|instruction, op| match instruction.code() {
        Code::Cvtsi2ss_xmm_rm64 | Code::VEX_Vcvtsi2ss_xmm_xmm_rm64 => by_memory!(op, cvtsi2ss, u64),
        _ => by_memory!(op, cvtsi2ss, u32),
    }),
    Cvtsi2sd | Vcvtsi2sd => choose(|instruction, op| match instruction.code() {
        Code::Cvtsi2sd_xmm_rm64 | Code::VEX_Vcvtsi2sd_xmm_xmm_rm64 => by_memory!(op, cvtsi2sd, u64),
        _ => by_memory!(op, cvtsi2sd, u32),
    }),
}

/// CVTPS2PD: two elements.
#[inline(always)]
pub(crate) fn cvtps2pd(env: &mut Env, b: u64) -> Lane {
    let low = convert(env, b as u32);
    [low, convert(env, (b >> 32) as u32)]
}

/// CVTPD2PS: two elements.
#[inline(always)]
pub(crate) fn cvtpd2ps(env: &mut Env, b: Lane) -> u64 {
    let low: u32 = convert(env, b[0]);
    let high: u32 = convert(env, b[1]);
    u64::from(low) | u64::from(high) << 32
}

/// CVTDQ2PD and CVTPI2PD: two signed doublewords.
#[inline(always)]
pub(crate) fn cvtdq2pd(env: &mut Env, b: u64) -> Lane {
    [from_i32(env, b as i32), from_i32(env, (b >> 32) as i32)]
}

extern "C" fn cvtsi2ss<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value: T = cpu.source::<T, MEMORY>(op)?;
    let result = cpu.simd(|env| from_i64(env, value.sext() as i64))?;
    let old = cpu.arch.vector.xmm(op.third);
    cpu.set_vector_dst(op, with_low32(old, result));
    Ok(())
}

extern "C" fn cvtsi2sd<T: Int, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_vector(op)?;
    let value: T = cpu.source::<T, MEMORY>(op)?;
    let result = cpu.simd(|env| from_i64(env, value.sext() as i64))?;
    let old = cpu.arch.vector.xmm(op.third);
    cpu.set_vector_dst(op, with_low(old, result));
    Ok(())
}

extern "C" fn cvtpi2ps<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    // The manual has a memory operand enter MMX operation, too (SDM Vol. 2A, CVTPI2PS): processors
    // do not do that, nor look for a pending x87 exception.
    let b = if MEMORY {
        cpu.load_operand::<u64>(op)?
    } else {
        cpu.check_mmx()?;
        // The change comes before any #XM.
        cpu.enter_mmx();
        cpu.mmx(op.src)
    };
    let result = cpu.simd(|env| {
        let low: u32 = from_i32(env, b as i32);
        let high: u32 = from_i32(env, (b >> 32) as i32);
        u64::from(low) | u64::from(high) << 32
    })?;
    let old = cpu.arch.vector.xmm(op.dst);
    cpu.arch.vector.set_xmm(op.dst, with_low(old, result));
    Ok(())
}

extern "C" fn cvtpi2pd_register(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let b = cpu.mmx(op.src);
    let result = cpu.simd(|env| cvtdq2pd(env, b))?;
    cpu.enter_mmx();
    cpu.arch.vector.set_xmm(op.dst, result);
    Ok(())
}

/// With a memory operand CVTPI2PD has nothing to do with MMX registers (SDM Vol. 2A).
extern "C" fn cvtpi2pd_memory(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_sse()?;
    let b = cpu.load_operand::<u64>(op)?;
    let result = cpu.simd(|env| cvtdq2pd(env, b))?;
    cpu.arch.vector.set_xmm(op.dst, result);
    Ok(())
}
