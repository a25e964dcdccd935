//! Unmasked exceptions against the SSE unit of the host: which flags stand in MXCSR when #XM comes.
#![expect(unsafe_code, reason = "runs single SSE instructions and handles SIGFPE")]

use core::arch::asm;
use core::cell::Cell;
use std::ptr;
use std::sync::Once;

use cloister_float::{self as float, Env, Flags};

use super::samples::Samples;

const CASES: usize = 20_000;
const DEFAULT: u32 = 0x1f80;

thread_local! {
    /// MXCSR as the last SIGFPE found it.
    static FAULTED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Records MXCSR and masks all exceptions, so that the instruction runs again and completes.
extern "C" fn on_sigfpe(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context with an FXSAVE image.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let image = &mut *context.uc_mcontext.fpregs;
        FAULTED.set(Some(image.mxcsr));
        image.mxcsr = DEFAULT;
    }
}

fn catch_sigfpe() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // SAFETY: a zeroed sigaction is valid, and the handler only touches its own context.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigfpe as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGFPE, &raw const action, ptr::null_mut());
        }
    });
}

macro_rules! sse {
    ($instruction:literal) => {
        |mxcsr: u32, a: u64, b: u64| -> (Option<u32>, u32) {
            let mut control = [mxcsr, 0, DEFAULT];
            FAULTED.set(None);
            // SAFETY: the instruction touches xmm0 and xmm1; a fault is handled by running it
            // again.
            unsafe {
                asm!(
                    "movq xmm0, {a}",
                    "movq xmm1, {b}",
                    "ldmxcsr [{control}]",
                    $instruction,
                    "stmxcsr [{control} + 4]",
                    "ldmxcsr [{control} + 8]",
                    a = in(reg) a,
                    b = in(reg) b,
                    control = in(reg) control.as_mut_ptr(),
                    out("rax") _,
                    out("xmm0") _,
                    out("xmm1") _,
                );
            }
            (FAULTED.get(), control[1])
        }
    };
}

type Host = fn(u32, u64, u64) -> (Option<u32>, u32);

fn check(name: &str, narrow: bool, host: Host, ours: fn(&mut Env, u64, u64)) {
    catch_sigfpe();
    let mut samples = Samples(41);
    for _ in 0..CASES {
        let masks = samples.below(64) as u32;
        let mxcsr = masks << 7 | (samples.bits() as u32 & 0xe040);
        let (a, b) = if narrow {
            let a = samples.f32();
            (a.into(), samples.f32_near(a).into())
        } else {
            let a = samples.f64();
            (a, samples.f64_near(a))
        };
        let mut env = Env::sse(mxcsr);

        ours(&mut env, a, b);

        let (faulted, completed) = host(mxcsr, a, b);
        let after = faulted.unwrap_or(completed);
        assert_eq!(
            (env.flags, !env.pending.is_empty()),
            (Flags::from_bits_truncate(after as u8), faulted.is_some()),
            "{name} {a:#x} {b:#x} mxcsr {mxcsr:#x}"
        );
    }
}

#[test]
fn unmasked_exceptions_of_binary64_match_the_host() {
    check("addsd", false, sse!("addsd xmm0, xmm1"), |env, a, b| {
        float::add(env, a, b);
    });
    check("mulsd", false, sse!("mulsd xmm0, xmm1"), |env, a, b| {
        float::mul(env, a, b);
    });
    check("divsd", false, sse!("divsd xmm0, xmm1"), |env, a, b| {
        float::div(env, a, b);
    });
    check("sqrtsd", false, sse!("sqrtsd xmm0, xmm0"), |env, a, _| {
        float::sqrt(env, a);
    });
    check("maxsd", false, sse!("maxsd xmm0, xmm1"), |env, a, b| {
        float::max(env, a, b);
    });
    check("comisd", false, sse!("comisd xmm0, xmm1"), |env, a, b| {
        float::compare(env, a, b, float::Comparison::Signaling);
    });
}

#[test]
fn unmasked_exceptions_of_binary32_match_the_host() {
    check("subss", true, sse!("subss xmm0, xmm1"), |env, a, b| {
        float::sub(env, a as u32, b as u32);
    });
    check("mulss", true, sse!("mulss xmm0, xmm1"), |env, a, b| {
        float::mul(env, a as u32, b as u32);
    });
    check("divss", true, sse!("divss xmm0, xmm1"), |env, a, b| {
        float::div(env, a as u32, b as u32);
    });
}

#[test]
fn unmasked_exceptions_of_conversions_match_the_host() {
    check("cvtsd2ss", false, sse!("cvtsd2ss xmm0, xmm0"), |env, a, _| {
        float::convert::<u64, u32>(env, a);
    });
    check("cvtss2sd", true, sse!("cvtss2sd xmm0, xmm0"), |env, a, _| {
        float::convert::<u32, u64>(env, a as u32);
    });
    check("cvtsd2si", false, sse!("cvtsd2si rax, xmm0"), |env, a, _| {
        let rounding = env.rounding;
        float::to_i64(env, a, rounding);
    });
}

#[test]
fn unmasked_exceptions_of_fused_operations_match_the_host() {
    if !is_x86_feature_detected!("fma") {
        return;
    }
    check("vfmadd213sd", false, sse!("vfmadd213sd xmm0, xmm1, xmm0"), |env, a, b| {
        float::fma(env, b, a, a, false, false);
    });
}
