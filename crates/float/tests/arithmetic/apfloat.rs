//! Against LLVM's APFloat, which knows nothing of denormal exceptions and has NaN rules of its own.

use cloister_float::{self as float, Class, Env, F80, Flags, Format, Rounding};
use rustc_apfloat::ieee::{Double, Single, X87DoubleExtended};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

use super::samples::Samples;

const CASES: usize = 60_000;

const MODES: [(Rounding, Round); 4] = [
    (Rounding::Nearest, Round::NearestTiesToEven),
    (Rounding::Down, Round::TowardNegative),
    (Rounding::Up, Round::TowardPositive),
    (Rounding::Zero, Round::TowardZero),
];

/// A format and its counterpart.
trait Oracle: Format {
    type Peer: Float;
    fn draw(samples: &mut Samples) -> Self;
    fn draw_near(samples: &mut Samples, other: Self) -> Self;
    fn peer(self) -> Self::Peer;
    fn bits(self) -> u128;
}

impl Oracle for u32 {
    type Peer = Single;
    fn draw(samples: &mut Samples) -> Self {
        samples.f32()
    }
    fn draw_near(samples: &mut Samples, other: Self) -> Self {
        samples.f32_near(other)
    }
    fn peer(self) -> Single {
        Single::from_bits(self.into())
    }
    fn bits(self) -> u128 {
        self.into()
    }
}

impl Oracle for u64 {
    type Peer = Double;
    fn draw(samples: &mut Samples) -> Self {
        samples.f64()
    }
    fn draw_near(samples: &mut Samples, other: Self) -> Self {
        samples.f64_near(other)
    }
    fn peer(self) -> Double {
        Double::from_bits(self.into())
    }
    fn bits(self) -> u128 {
        self.into()
    }
}

impl Oracle for F80 {
    type Peer = X87DoubleExtended;
    fn draw(samples: &mut Samples) -> Self {
        loop {
            let x = samples.f80();
            // APFloat has no notion of pseudo-denormals and unsupported encodings.
            if (x.biased() == 0) != (x.mantissa >> 63 != 0) {
                return x;
            }
        }
    }
    fn draw_near(samples: &mut Samples, other: Self) -> Self {
        loop {
            let x = samples.f80_near(other);
            if (x.biased() == 0) != (x.mantissa >> 63 != 0) {
                return x;
            }
        }
    }
    fn peer(self) -> X87DoubleExtended {
        X87DoubleExtended::from_bits(self.bits())
    }
    fn bits(self) -> u128 {
        u128::from(self.sign_exp) << 64 | u128::from(self.mantissa)
    }
}

fn env(rounding: Rounding) -> Env {
    Env { rounding, ..Env::sse(0x1f80) }
}

fn flags_of(status: Status) -> Flags {
    let mut flags = Flags::empty();
    for (theirs, ours) in [
        (Status::INVALID_OP, Flags::IE),
        (Status::DIV_BY_ZERO, Flags::ZE),
        (Status::OVERFLOW, Flags::OE),
        (Status::UNDERFLOW, Flags::UE),
        (Status::INEXACT, Flags::PE),
    ] {
        flags.set(ours, status.contains(theirs));
    }
    flags
}

/// Compares the value, and the flags as far as the two define them alike.
fn agree<F: Oracle>(ours: F, env: &Env, theirs: &StatusAnd<F::Peer>) -> bool {
    let class = ours.unpack().class;
    if theirs.value.is_nan() {
        return class == Class::QuietNan;
    }
    // A result that only the denormal grid rounds up to the smallest normal number is tiny to x86
    // alone.
    let mut ignored = Flags::DE;
    if theirs.value.is_smallest_normalized() {
        ignored |= Flags::UE;
    }
    // APFloat reports an overflow that saturates at the largest number as inexact alone.
    if theirs.value.is_largest() {
        ignored |= Flags::OE;
    }
    ours.bits() == theirs.value.to_bits()
        && env.flags.difference(ignored) == flags_of(theirs.status).difference(ignored)
}

macro_rules! two_operands {
    ($name:ident, $format:ty, $ours:path, $theirs:ident) => {
        #[test]
        fn $name() {
            let mut samples = Samples(1);
            for _ in 0..CASES {
                let a = <$format>::draw(&mut samples);
                let b = <$format>::draw_near(&mut samples, a);
                for (rounding, round) in MODES {
                    let mut env = env(rounding);

                    let ours = $ours(&mut env, a, b);

                    let theirs = a.peer().$theirs(b.peer(), round);
                    assert!(
                        agree(ours, &env, &theirs),
                        "{a:x?} {b:x?} {rounding:?}: {ours:x?} {:?}, expected {:x} {:?}",
                        env.flags,
                        theirs.value.to_bits(),
                        theirs.status,
                    );
                }
            }
        }
    };
}

two_operands!(f32_sums_agree, u32, float::add, add_r);
two_operands!(f64_sums_agree, u64, float::add, add_r);
two_operands!(f80_sums_agree, F80, float::add, add_r);
two_operands!(f32_differences_agree, u32, float::sub, sub_r);
two_operands!(f64_differences_agree, u64, float::sub, sub_r);
two_operands!(f80_differences_agree, F80, float::sub, sub_r);
two_operands!(f32_products_agree, u32, float::mul, mul_r);
two_operands!(f64_products_agree, u64, float::mul, mul_r);
two_operands!(f80_products_agree, F80, float::mul, mul_r);
two_operands!(f32_quotients_agree, u32, float::div, div_r);
two_operands!(f64_quotients_agree, u64, float::div, div_r);
two_operands!(f80_quotients_agree, F80, float::div, div_r);

fn fma_agrees<F: Oracle>() {
    let mut samples = Samples(2);
    for _ in 0..CASES {
        let a = F::draw(&mut samples);
        let b = F::draw_near(&mut samples, a);
        // Close to the product, so that the sum cancels.
        let c = if samples.below(2) == 0 {
            float::mul(&mut env(Rounding::Zero), a, b).negate()
        } else {
            F::draw(&mut samples)
        };
        for (rounding, round) in MODES {
            let mut env = env(rounding);

            let ours = float::fma(&mut env, a, b, c, false, false);

            let theirs = a.peer().mul_add_r(b.peer(), c.peer(), round);
            assert!(
                agree(ours, &env, &theirs),
                "{a:x?} {b:x?} {c:x?} {rounding:?}: {ours:x?} {:?}, expected {:x} {:?}",
                env.flags,
                theirs.value.to_bits(),
                theirs.status,
            );
        }
    }
}

#[test]
fn f32_fused_multiply_adds_agree() {
    fma_agrees::<u32>();
}

#[test]
fn f64_fused_multiply_adds_agree() {
    fma_agrees::<u64>();
}

fn conversion_agrees<F: Oracle, T: Oracle>()
where
    F::Peer: FloatConvert<T::Peer>,
{
    let mut samples = Samples(3);
    for _ in 0..CASES {
        let x = F::draw(&mut samples);
        for (rounding, round) in MODES {
            let mut env = env(rounding);

            let ours: T = float::convert(&mut env, x);

            let mut loses = false;
            let theirs = x.peer().convert_r(round, &mut loses);
            assert!(
                agree(ours, &env, &theirs),
                "{x:x?} {rounding:?}: {ours:x?} {:?}, expected {:x} {:?}",
                env.flags,
                theirs.value.to_bits(),
                theirs.status,
            );
        }
    }
}

#[test]
fn conversions_between_formats_agree() {
    conversion_agrees::<u32, u64>();
    conversion_agrees::<u32, F80>();
    conversion_agrees::<u64, u32>();
    conversion_agrees::<u64, F80>();
    conversion_agrees::<F80, u32>();
    conversion_agrees::<F80, u64>();
}

fn integers_agree<F: Oracle>() {
    let mut samples = Samples(4);
    for _ in 0..CASES {
        let x = F::draw(&mut samples);
        let integer = samples.bits() as i64 >> samples.below(64);
        for (rounding, round) in MODES {
            for bits in [16, 32, 64] {
                let mut env = env(rounding);

                let ours = float::to_integer(&mut env, x, bits, rounding);

                let mut exact = false;
                let theirs = x.peer().to_i128_r(bits as usize, round, &mut exact);
                if theirs.status.contains(Status::INVALID_OP) {
                    assert_eq!((ours, env.flags), (i64::MIN >> (64 - bits), Flags::IE));
                } else {
                    assert_eq!(
                        (i128::from(ours), env.flags),
                        (theirs.value, flags_of(theirs.status)),
                        "{x:x?} {bits} {rounding:?}"
                    );
                }
            }
            let mut env = env(rounding);

            let ours: F = float::from_i64(&mut env, integer);

            let theirs = F::Peer::from_i128_r(integer.into(), round);
            assert!(agree(ours, &env, &theirs), "{integer} {rounding:?}");
        }
    }
}

#[test]
fn conversions_from_and_to_integers_agree() {
    integers_agree::<u32>();
    integers_agree::<u64>();
    integers_agree::<F80>();
}

fn rounding_to_integral_agrees<F: Oracle>() {
    let mut samples = Samples(5);
    for _ in 0..CASES {
        let x = F::draw(&mut samples);
        for (rounding, round) in MODES {
            let mut env = env(rounding);

            let ours = float::round_to_integral(&mut env, x, rounding, false);

            let theirs = x.peer().round_to_integral(round);
            if theirs.value.is_nan() {
                assert_eq!(ours.unpack().class, Class::QuietNan);
            } else {
                assert_eq!(ours.bits(), theirs.value.to_bits(), "{x:x?} {rounding:?}");
                assert_eq!(env.flags.contains(Flags::PE), ours != x);
            }
        }
    }
}

#[test]
fn integral_values_agree() {
    rounding_to_integral_agrees::<u32>();
    rounding_to_integral_agrees::<u64>();
    rounding_to_integral_agrees::<F80>();
}
