//! Against the SSE unit of the host: results and MXCSR, all exceptions masked.
#![expect(unsafe_code, reason = "runs single SSE instructions by inline assembly")]

use core::arch::asm;

use cloister_float::{self as float, Comparison, Env, Flags, Relation, Rounding};

use super::samples::Samples;

const CASES: usize = 400_000;

/// MXCSR at rest.
const DEFAULT: u32 = 0x1f80;

/// All exceptions masked; rounding, DAZ, FTZ and sticky flags at random.
fn any_mxcsr(samples: &mut Samples) -> u32 {
    let flags = if samples.below(2) == 0 { 0 } else { samples.below(64) as u32 };
    let modes = match samples.below(4) {
        0 => samples.bits() as u32 & 0xe040,
        1 => samples.bits() as u32 & 0x6000,
        _ => 0,
    };
    DEFAULT | modes | flags
}

/// One instruction on xmm0 and xmm1; xmm0 and MXCSR afterwards.
macro_rules! sse {
    ($instruction:literal) => {
        |mxcsr: u32, a: u64, b: u64| -> (u64, u32) {
            let result: u64;
            let mut control = [mxcsr, 0, DEFAULT];
            // SAFETY: the instruction touches xmm0 and xmm1 alone; MXCSR is back at its default at
            // the end.
            unsafe {
                asm!(
                    "movq xmm0, {a}",
                    "movq xmm1, {b}",
                    "ldmxcsr [{control}]",
                    $instruction,
                    "stmxcsr [{control} + 4]",
                    "ldmxcsr [{control} + 8]",
                    "movq {result}, xmm0",
                    a = in(reg) a,
                    b = in(reg) b,
                    control = in(reg) control.as_mut_ptr(),
                    result = lateout(reg) result,
                    out("rax") _,
                    out("xmm0") _,
                    out("xmm1") _,
                    options(nostack),
                );
            }
            (result, control[1])
        }
    };
}

/// One instruction from xmm0 and xmm1 to rax and RFLAGS.
macro_rules! sse_to_integer {
    ($instruction:literal) => {
        |mxcsr: u32, a: u64, b: u64| -> (u64, u64, u32) {
            let result: u64;
            let rflags: u64;
            let mut control = [mxcsr, 0, DEFAULT];
            // SAFETY: the instruction reads xmm0 and xmm1 and writes rax; MXCSR is restored and the
            // stack balanced.
            unsafe {
                asm!(
                    "movq xmm0, {a}",
                    "movq xmm1, {b}",
                    "xor eax, eax",
                    "ldmxcsr [{control}]",
                    $instruction,
                    "stmxcsr [{control} + 4]",
                    "ldmxcsr [{control} + 8]",
                    "pushfq",
                    "pop {rflags}",
                    a = in(reg) a,
                    b = in(reg) b,
                    control = in(reg) control.as_mut_ptr(),
                    rflags = out(reg) rflags,
                    out("rax") result,
                    out("xmm0") _,
                    out("xmm1") _,
                );
            }
            (result, rflags, control[1])
        }
    };
}

fn f64_pairs(
    name: &str,
    host: fn(u32, u64, u64) -> (u64, u32),
    ours: fn(&mut Env, u64, u64) -> u64,
) {
    let mut samples = Samples(11);
    for _ in 0..CASES {
        let mxcsr = any_mxcsr(&mut samples);
        let a = samples.f64();
        let b = samples.f64_near(a);
        let mut env = Env::sse(mxcsr);

        let result = ours(&mut env, a, b);

        let (expected, after) = host(mxcsr, a, b);
        assert_eq!(
            (result, env.flags),
            (expected, Flags::from_bits_truncate(after as u8)),
            "{name} {a:#x} {b:#x} mxcsr {mxcsr:#x}: {result:#x} for {expected:#x}"
        );
    }
}

fn f32_pairs(
    name: &str,
    host: fn(u32, u64, u64) -> (u64, u32),
    ours: fn(&mut Env, u32, u32) -> u32,
) {
    let mut samples = Samples(12);
    for _ in 0..CASES {
        let mxcsr = any_mxcsr(&mut samples);
        let a = samples.f32();
        let b = samples.f32_near(a);
        let mut env = Env::sse(mxcsr);

        let result = ours(&mut env, a, b);

        let (expected, after) = host(mxcsr, a.into(), b.into());
        assert_eq!(
            (result, env.flags),
            (expected as u32, Flags::from_bits_truncate(after as u8)),
            "{name} {a:#x} {b:#x} mxcsr {mxcsr:#x}: {result:#x} for {expected:#x}"
        );
    }
}

#[test]
fn binary64_arithmetic_matches_the_host() {
    f64_pairs("addsd", sse!("addsd xmm0, xmm1"), float::add);
    f64_pairs("subsd", sse!("subsd xmm0, xmm1"), float::sub);
    f64_pairs("mulsd", sse!("mulsd xmm0, xmm1"), float::mul);
    f64_pairs("divsd", sse!("divsd xmm0, xmm1"), float::div);
    f64_pairs("sqrtsd", sse!("sqrtsd xmm0, xmm0"), |env, a, _| float::sqrt(env, a));
}

#[test]
fn binary32_arithmetic_matches_the_host() {
    f32_pairs("addss", sse!("addss xmm0, xmm1"), float::add);
    f32_pairs("subss", sse!("subss xmm0, xmm1"), float::sub);
    f32_pairs("mulss", sse!("mulss xmm0, xmm1"), float::mul);
    f32_pairs("divss", sse!("divss xmm0, xmm1"), float::div);
    f32_pairs("sqrtss", sse!("sqrtss xmm0, xmm0"), |env, a, _| float::sqrt(env, a));
}

#[test]
fn minimum_and_maximum_match_the_host() {
    f64_pairs("minsd", sse!("minsd xmm0, xmm1"), float::min);
    f64_pairs("maxsd", sse!("maxsd xmm0, xmm1"), float::max);
    f32_pairs("minss", sse!("minss xmm0, xmm1"), float::min);
    f32_pairs("maxss", sse!("maxss xmm0, xmm1"), float::max);
}

#[test]
fn conversions_between_formats_match_the_host() {
    f64_pairs("cvtsd2ss", sse!("cvtsd2ss xmm0, xmm0"), |env, a, _| {
        // The upper half of the register keeps the source's.
        a >> 32 << 32 | u64::from(float::convert::<u64, u32>(env, a))
    });
    let mut samples = Samples(13);
    let host: fn(u32, u64, u64) -> (u64, u32) = sse!("cvtss2sd xmm0, xmm0");
    for _ in 0..CASES {
        let mxcsr = any_mxcsr(&mut samples);
        let a = samples.f32();
        let mut env = Env::sse(mxcsr);

        let result: u64 = float::convert(&mut env, a);

        let (expected, after) = host(mxcsr, a.into(), 0);
        assert_eq!(
            (result, env.flags),
            (expected, Flags::from_bits_truncate(after as u8)),
            "{a:#x} mxcsr {mxcsr:#x}"
        );
    }
}

#[test]
fn conversions_from_integers_match_the_host() {
    f64_pairs("cvtsi2sd", sse!("movq rax, xmm0\ncvtsi2sd xmm0, rax"), |env, a, _| {
        float::from_i64(env, a as i64)
    });
    f64_pairs("cvtdq2pd", sse!("cvtdq2pd xmm0, xmm0"), |env, a, _| float::from_i32(env, a as i32));
    f32_pairs("cvtdq2ps", sse!("cvtdq2ps xmm0, xmm0"), |env, a, _| float::from_i32(env, a as i32));
}

#[test]
fn conversions_to_integers_match_the_host() {
    let to_i64: fn(u32, u64, u64) -> (u64, u64, u32) = sse_to_integer!("cvtsd2si rax, xmm0");
    let to_i32: fn(u32, u64, u64) -> (u64, u64, u32) = sse_to_integer!("cvtsd2si eax, xmm0");
    let cut_i64: fn(u32, u64, u64) -> (u64, u64, u32) = sse_to_integer!("cvttss2si rax, xmm0");
    let cut_i32: fn(u32, u64, u64) -> (u64, u64, u32) = sse_to_integer!("cvttss2si eax, xmm0");
    let mut samples = Samples(14);
    for _ in 0..CASES {
        let mxcsr = any_mxcsr(&mut samples);
        let (a, b) = (samples.f64(), samples.f32());
        let env = Env::sse(mxcsr);
        let (mut env1, mut env2, mut env3, mut env4) = (env, env, env, env);

        let r1 = float::to_i64(&mut env1, a, env.rounding) as u64;
        let r2 = float::to_i32(&mut env2, a, env.rounding) as u32;
        let r3 = float::to_i64(&mut env3, b, Rounding::Zero) as u64;
        let r4 = float::to_i32(&mut env4, b, Rounding::Zero) as u32;

        let (e1, _, f1) = to_i64(mxcsr, a, 0);
        let (e2, _, f2) = to_i32(mxcsr, a, 0);
        let (e3, _, f3) = cut_i64(mxcsr, b.into(), 0);
        let (e4, _, f4) = cut_i32(mxcsr, b.into(), 0);
        let after = [f1, f2, f3, f4].map(|f| Flags::from_bits_truncate(f as u8));
        assert_eq!(
            ([r1, r2.into(), r3, r4.into()], [env1.flags, env2.flags, env3.flags, env4.flags]),
            ([e1, e2, e3, e4], after),
            "{a:#x} {b:#x} mxcsr {mxcsr:#x}"
        );
    }
}

#[test]
fn comparisons_match_the_host() {
    let quiet: fn(u32, u64, u64) -> (u64, u64, u32) = sse_to_integer!("ucomisd xmm0, xmm1");
    let signaling: fn(u32, u64, u64) -> (u64, u64, u32) = sse_to_integer!("comisd xmm0, xmm1");
    let mut samples = Samples(15);
    for _ in 0..CASES {
        let mxcsr = any_mxcsr(&mut samples);
        let a = samples.f64();
        let b = samples.f64_near(a);
        for (comparison, host) in [(Comparison::Quiet, quiet), (Comparison::Signaling, signaling)] {
            let mut env = Env::sse(mxcsr);

            let relation = float::compare(&mut env, a, b, comparison);

            let (_, rflags, after) = host(mxcsr, a, b);
            // ZF, PF and CF as UCOMISD sets them.
            let expected = match rflags & 0x45 {
                0x45 => Relation::Unordered,
                0x40 => Relation::Equal,
                0x01 => Relation::Less,
                _ => Relation::Greater,
            };
            assert_eq!(
                (relation, env.flags),
                (expected, Flags::from_bits_truncate(after as u8)),
                "{a:#x} {b:#x} mxcsr {mxcsr:#x}"
            );
        }
    }
}

#[test]
fn rounding_to_integral_matches_the_host() {
    if !is_x86_feature_detected!("sse4.1") {
        return;
    }
    f64_pairs("roundsd 4", sse!("roundsd xmm0, xmm0, 4"), |env, a, _| {
        let rounding = env.rounding;
        float::round_to_integral(env, a, rounding, false)
    });
    f64_pairs("roundsd 9", sse!("roundsd xmm0, xmm0, 9"), |env, a, _| {
        float::round_to_integral(env, a, Rounding::Down, true)
    });
    f32_pairs("roundss 2", sse!("roundss xmm0, xmm0, 2"), |env, a, _| {
        float::round_to_integral(env, a, Rounding::Up, false)
    });
}

#[test]
fn fused_multiply_add_matches_the_host() {
    if !is_x86_feature_detected!("fma") {
        return;
    }
    // xmm0 = xmm0 * xmm1 + xmm0, and - for the negated forms.
    f64_pairs("vfmadd213sd", sse!("vfmadd213sd xmm0, xmm1, xmm0"), |env, a, b| {
        float::fma(env, b, a, a, false, false)
    });
    f64_pairs("vfnmsub213sd", sse!("vfnmsub213sd xmm0, xmm1, xmm0"), |env, a, b| {
        float::fma(env, b, a, a, true, true)
    });
    f32_pairs("vfmsub231ss", sse!("vfmsub231ss xmm0, xmm1, xmm1"), |env, a, b| {
        float::fma(env, b, b, a, false, true)
    });
}
