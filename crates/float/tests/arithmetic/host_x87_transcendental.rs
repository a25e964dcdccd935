//! The transcendental instructions against the host's, which may differ in the last place.
#![expect(unsafe_code, reason = "runs single x87 instructions by inline assembly")]

use cloister_float::{self as float, Env, F80};
use iced_x86::Code;

use super::host_table::{Outcome, unexcused};
use super::samples::Samples;
use super::x87_processor::{After, Frame, Processor, x87};

const CASES: usize = 100_000;

/// Compares an instruction whose results, from ST(0) on, are `ours`; `None`: the argument is out of
/// range. What the host may differ in is the table's to say.
fn close(
    code: Code,
    draw: fn(&mut Samples) -> F80,
    host: Processor,
    ours: fn(&mut Env, F80, F80) -> Option<Vec<F80>>,
) {
    let mut samples = Samples(31);
    let mut differing = 0;
    for _ in 0..CASES {
        let control = 0x037f | (samples.below(4) as u16) << 10;
        let a = draw(&mut samples);
        let b = samples.f80();
        let mut env = Env::x87(control);

        let results = ours(&mut env, a, b);

        let expected = host(control, a, b, [0; 16]);
        let theirs = Outcome {
            status: expected.status & 0x43f,
            stack: [expected.stack[0], expected.stack[1]],
        };
        let c2 = if results.is_none() { 1 << 10 } else { 0 };
        let results = results.unwrap_or_else(|| vec![a]);
        let mut stack = theirs.stack;
        stack[..results.len()].copy_from_slice(&results);
        let outcome = Outcome { status: u16::from(env.flags.bits()) | c2, stack };
        let left = unexcused(code, control, [a, b], theirs, outcome);
        assert!(left.is_empty(), "{code:?} {a:x?} {b:x?} control {control:#x}: {left:?}");
        differing += usize::from(theirs.stack != stack);
    }
    // The exact value decides elsewhere: this only bounds how often two good implementations
    // disagree.
    assert!(differing < CASES / 2, "{code:?}: {differing} of {CASES} differ");
}

/// Magnitudes below one: the domain of F2XM1.
fn below_one(samples: &mut Samples) -> F80 {
    let x = samples.f80();
    if x.biased() > 0x3ffe && samples.below(8) == 0 {
        return F80::new(x.sign_exp & 0x8000 | 0x3fff, 1 << 63);
    }
    F80::new(x.sign_exp & 0x8000 | x.biased().min(0x3ffe), x.mantissa)
}

#[test]
fn f2xm1_is_within_an_ulp_of_the_host() {
    close(Code::F2xm1, below_one, x87!("f2xm1"), |env, a, _| Some(vec![float::f2xm1(env, a)]));
}

#[test]
fn fyl2x_is_within_an_ulp_of_the_host() {
    close(Code::Fyl2x, Samples::f80, x87!("fyl2x"), |env, a, b| {
        Some(vec![float::fyl2x(env, b, a)])
    });
}

#[test]
fn fyl2xp1_is_within_an_ulp_of_the_host() {
    close(
        Code::Fyl2xp1,
        |samples| {
            let x = samples.f80();
            F80::new(x.sign_exp & 0x8000 | x.biased().min(0x3ffc), x.mantissa)
        },
        x87!("fyl2xp1"),
        |env, a, b| Some(vec![float::fyl2xp1(env, b, a)]),
    );
}

#[test]
fn fpatan_is_within_an_ulp_of_the_host() {
    close(Code::Fpatan, Samples::f80, x87!("fpatan"), |env, a, b| {
        Some(vec![float::fpatan(env, b, a)])
    });
}

#[test]
fn sine_and_cosine_are_within_an_ulp_of_the_host() {
    close(Code::Fsin, Samples::f80, x87!("fsin"), |env, a, _| Some(vec![float::fsin(env, a)?]));
    close(Code::Fcos, Samples::f80, x87!("fcos"), |env, a, _| Some(vec![float::fcos(env, a)?]));
    close(Code::Fsincos, Samples::f80, x87!("fsincos"), |env, a, _| {
        let (sine, cosine) = float::fsincos(env, a)?;
        Some(vec![cosine, sine])
    });
}

#[test]
fn fptan_is_within_an_ulp_of_the_host() {
    close(Code::Fptan, Samples::f80, x87!("fptan"), |env, a, _| {
        let (tangent, one) = float::fptan(env, a)?;
        Some(vec![one, tangent])
    });
}
