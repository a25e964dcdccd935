//! The three binary formats and what they have in common (SDM vol. 1, section 4.2.2 and 4.8.3).

use super::env::Env;
use super::fast;

/// What an encoding stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A signed zero.
    Zero,
    /// A nonzero finite number.
    Finite,
    /// A signed infinity.
    Infinity,
    /// A quiet NaN.
    QuietNan,
    /// A signalling NaN.
    SignalingNan,
    /// An x87 encoding that the processor does not support: unnormal, pseudo-infinity or pseudo-NaN
    /// (SDM vol. 1, section 8.2.2).
    Unsupported,
}

/// An operand taken apart, whatever its format was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// What it is.
    pub class: Class,
    /// The sign bit.
    pub sign: bool,
    /// It is encoded as a denormal (or pseudo-denormal).
    pub denormal: bool,
    /// For a finite number, the unbiased exponent: the value is `significand * 2^(exponent - 63)`.
    pub exponent: i32,
    /// For a finite number normalized to bit 63; for a NaN the x87 mantissa that it widens to.
    pub significand: u64,
}

impl Operand {
    /// A finite number in its usual encoding, with which nothing can go wrong before a result is
    /// computed.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        matches!(self.class, Class::Finite) && !self.denormal
    }

    /// Either kind of NaN.
    #[inline]
    pub const fn is_nan(self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignalingNan)
    }

    const fn special(class: Class, sign: bool, significand: u64) -> Self {
        Self { class, sign, denormal: false, exponent: 0, significand }
    }

    /// The operand that an integer is: exact, and never denormal.
    #[inline]
    pub const fn from_i64(value: i64) -> Self {
        let sign = value < 0;
        let magnitude = value.unsigned_abs();
        if magnitude == 0 {
            return Self::special(Class::Zero, sign, 0);
        }
        let shift = magnitude.leading_zeros();
        Self {
            class: Class::Finite,
            sign,
            denormal: false,
            exponent: 63 - shift as i32,
            significand: magnitude << shift,
        }
    }
}

/// A binary floating-point format. Implemented by `u16` (binary16), `u32` (binary32), `u64`
/// (binary64) and [`F80`].
pub trait Format: Copy + Eq + core::fmt::Debug {
    /// Significand bits, the integer bit included.
    const PRECISION: u32;
    /// Largest exponent of a finite number; also the bias.
    const MAX_EXPONENT: i32;
    /// Smallest exponent of a normal number.
    const MIN_EXPONENT: i32 = 1 - Self::MAX_EXPONENT;
    /// The x87 format: its NaN rules, no DAZ and FTZ, biased results for unmasked overflow and
    /// underflow.
    const X87: bool;

    /// Takes an encoding apart.
    fn unpack(self) -> Operand;

    /// Builds an encoding from a biased exponent and a significand whose integer bit is bit 63.
    fn assemble(sign: bool, biased: u32, significand: u64) -> Self;

    /// The signed zero.
    fn zero(sign: bool) -> Self {
        Self::assemble(sign, 0, 0)
    }

    /// The signed infinity.
    fn infinity(sign: bool) -> Self {
        Self::assemble(sign, 2 * Self::MAX_EXPONENT as u32 + 1, 1 << 63)
    }

    /// A quiet NaN with the given x87 mantissa, cut to what the format holds.
    fn nan(sign: bool, mantissa: u64) -> Self {
        Self::assemble(sign, 2 * Self::MAX_EXPONENT as u32 + 1, mantissa | 0b11 << 62)
    }

    /// QNaN floating-point indefinite, the masked response to an invalid operation.
    fn indefinite() -> Self {
        Self::nan(true, 0)
    }

    /// The sum, if the host's own addition must give the same result and flags.
    #[doc(hidden)]
    #[inline]
    fn host_add(_env: &mut Env, _a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// The product, likewise.
    #[doc(hidden)]
    #[inline]
    fn host_mul(_env: &mut Env, _a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// The quotient, likewise.
    #[doc(hidden)]
    #[inline]
    fn host_div(_env: &mut Env, _a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// The square root, likewise.
    #[doc(hidden)]
    #[inline]
    fn host_sqrt(_env: &mut Env, _a: Self) -> Option<Self> {
        None
    }

    /// `a * b + c` rounded once, likewise.
    #[doc(hidden)]
    #[inline]
    fn host_fma(_env: &Env, _a: Self, _b: Self, _c: Self) -> Option<Self> {
        None
    }

    /// The value with its sign inverted.
    fn negate(self) -> Self;
}

#[inline(always)]
fn unpack_binary(
    sign: bool,
    biased: i32,
    fraction: u64,
    precision: u32,
    max_exponent: i32,
) -> Operand {
    // The fraction's first bit is bit 62, below the integer bit.
    let fraction = fraction << (64 - precision);
    if biased == 2 * max_exponent + 1 {
        let mantissa = fraction | 1 << 63;
        return match fraction {
            0 => Operand::special(Class::Infinity, sign, mantissa),
            f if f >> 62 & 1 != 0 => Operand::special(Class::QuietNan, sign, mantissa),
            _ => Operand::special(Class::SignalingNan, sign, mantissa),
        };
    }
    if biased == 0 {
        if fraction == 0 {
            return Operand::special(Class::Zero, sign, 0);
        }
        let shift = fraction.leading_zeros();
        return Operand {
            class: Class::Finite,
            sign,
            denormal: true,
            exponent: 1 - max_exponent - shift as i32,
            significand: fraction << shift,
        };
    }
    Operand {
        class: Class::Finite,
        sign,
        denormal: false,
        exponent: biased - max_exponent,
        significand: fraction | 1 << 63,
    }
}

/// Binary16, which F16C only converts from and to.
impl Format for u16 {
    const PRECISION: u32 = 11;
    const MAX_EXPONENT: i32 = 15;
    const X87: bool = false;

    #[inline]
    fn unpack(self) -> Operand {
        unpack_binary(
            self >> 15 != 0,
            i32::from(self >> 10 & 0x1f),
            u64::from(self & 0x3ff),
            Self::PRECISION,
            Self::MAX_EXPONENT,
        )
    }

    #[inline]
    fn assemble(sign: bool, biased: u32, significand: u64) -> Self {
        u16::from(sign) << 15 | (biased as u16) << 10 | ((significand >> 53) as u16 & 0x3ff)
    }

    #[inline]
    fn negate(self) -> Self {
        self ^ 1 << 15
    }
}

impl Format for u32 {
    const PRECISION: u32 = 24;
    const MAX_EXPONENT: i32 = 127;
    const X87: bool = false;

    #[inline]
    fn unpack(self) -> Operand {
        unpack_binary(
            self >> 31 != 0,
            (self >> 23 & 0xff) as i32,
            u64::from(self & 0x7f_ffff),
            Self::PRECISION,
            Self::MAX_EXPONENT,
        )
    }

    #[inline]
    fn assemble(sign: bool, biased: u32, significand: u64) -> Self {
        u32::from(sign) << 31 | biased << 23 | ((significand >> 40) as u32 & 0x7f_ffff)
    }

    #[inline]
    fn host_add(env: &mut Env, a: Self, b: Self) -> Option<Self> {
        fast::add_f32(env, a, b)
    }

    #[inline]
    fn host_mul(env: &mut Env, a: Self, b: Self) -> Option<Self> {
        fast::mul_f32(env, a, b)
    }

    #[inline]
    fn host_div(env: &mut Env, a: Self, b: Self) -> Option<Self> {
        fast::div_f32(env, a, b)
    }

    #[inline]
    fn host_sqrt(env: &mut Env, a: Self) -> Option<Self> {
        fast::sqrt_f32(env, a)
    }

    #[inline]
    fn host_fma(env: &Env, a: Self, b: Self, c: Self) -> Option<Self> {
        fast::fma_f32(env, a, b, c)
    }

    #[inline]
    fn negate(self) -> Self {
        self ^ 1 << 31
    }
}

impl Format for u64 {
    const PRECISION: u32 = 53;
    const MAX_EXPONENT: i32 = 1023;
    const X87: bool = false;

    #[inline]
    fn unpack(self) -> Operand {
        unpack_binary(
            self >> 63 != 0,
            (self >> 52 & 0x7ff) as i32,
            self & 0xf_ffff_ffff_ffff,
            Self::PRECISION,
            Self::MAX_EXPONENT,
        )
    }

    #[inline]
    fn assemble(sign: bool, biased: u32, significand: u64) -> Self {
        u64::from(sign) << 63 | u64::from(biased) << 52 | (significand >> 11 & 0xf_ffff_ffff_ffff)
    }

    #[inline]
    fn host_add(env: &mut Env, a: Self, b: Self) -> Option<Self> {
        fast::add_f64(env, a, b)
    }

    #[inline]
    fn host_mul(env: &mut Env, a: Self, b: Self) -> Option<Self> {
        fast::mul_f64(env, a, b)
    }

    #[inline]
    fn host_div(env: &mut Env, a: Self, b: Self) -> Option<Self> {
        fast::div_f64(env, a, b)
    }

    #[inline]
    fn host_sqrt(env: &mut Env, a: Self) -> Option<Self> {
        fast::sqrt_f64(env, a)
    }

    #[inline]
    fn host_fma(env: &Env, a: Self, b: Self, c: Self) -> Option<Self> {
        fast::fma_f64(env, a, b, c)
    }

    #[inline]
    fn negate(self) -> Self {
        self ^ 1 << 63
    }
}

/// The x87 double extended-precision format, 80 bits: sign and exponent, and a significand with an
/// explicit integer bit (SDM vol. 1, section 4.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F80 {
    /// Bits 79:64: the sign (bit 15) and the biased exponent.
    pub sign_exp: u16,
    /// Bits 63:0: the integer bit and the fraction.
    pub mantissa: u64,
}

impl F80 {
    /// +0.0.
    pub const ZERO: Self = Self::new(0, 0);
    /// +1.0.
    pub const ONE: Self = Self::new(0x3fff, 1 << 63);
    /// QNaN floating-point indefinite.
    pub const INDEFINITE: Self = Self::new(0xffff, 0b11 << 62);

    /// The value with these fields.
    #[inline]
    pub const fn new(sign_exp: u16, mantissa: u64) -> Self {
        Self { sign_exp, mantissa }
    }

    /// Reads the ten bytes of a memory operand.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9] = bytes;
        Self {
            sign_exp: u16::from_le_bytes([b8, b9]),
            mantissa: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        }
    }

    /// The ten bytes of a memory operand.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 10] {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = self.mantissa.to_le_bytes();
        let [b8, b9] = self.sign_exp.to_le_bytes();
        [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9]
    }

    /// The sign bit.
    #[inline]
    pub const fn sign(self) -> bool {
        self.sign_exp >> 15 != 0
    }

    /// The biased exponent.
    #[inline]
    pub const fn biased(self) -> u16 {
        self.sign_exp & 0x7fff
    }
}

impl Format for F80 {
    const PRECISION: u32 = 64;
    const MAX_EXPONENT: i32 = 16383;
    const X87: bool = true;

    #[inline]
    fn unpack(self) -> Operand {
        let sign = self.sign();
        let mantissa = self.mantissa;
        let integer_bit = mantissa >> 63 != 0;
        match self.biased() {
            0 if mantissa == 0 => Operand::special(Class::Zero, sign, 0),
            0 => {
                // A pseudo-denormal (integer bit set) has the value that biased exponent 1 would
                // give it.
                let shift = mantissa.leading_zeros();
                Operand {
                    class: Class::Finite,
                    sign,
                    denormal: true,
                    exponent: Self::MIN_EXPONENT - shift as i32,
                    significand: mantissa << shift,
                }
            }
            _ if !integer_bit => Operand::special(Class::Unsupported, sign, mantissa),
            0x7fff => {
                let class = match (mantissa << 1, mantissa >> 62 & 1) {
                    (0, _) => Class::Infinity,
                    (_, 1) => Class::QuietNan,
                    _ => Class::SignalingNan,
                };
                Operand::special(class, sign, mantissa)
            }
            biased => Operand {
                class: Class::Finite,
                sign,
                denormal: false,
                exponent: i32::from(biased) - Self::MAX_EXPONENT,
                significand: mantissa,
            },
        }
    }

    #[inline]
    fn assemble(sign: bool, biased: u32, significand: u64) -> Self {
        Self::new(u16::from(sign) << 15 | biased as u16, significand)
    }

    #[inline]
    fn negate(self) -> Self {
        Self::new(self.sign_exp ^ 1 << 15, self.mantissa)
    }
}
