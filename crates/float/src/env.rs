//! Rounding control, masks and exception flags.

use bitflags::bitflags;

bitflags! {
    /// The six floating-point exceptions, in the bit order of MXCSR and of the x87 status word (SDM
    /// vol. 1, sections 8.1.3.3 and 10.2.3.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u8 {
        /// Invalid operation.
        const IE = 1 << 0;
        /// Denormal operand.
        const DE = 1 << 1;
        /// Division by zero.
        const ZE = 1 << 2;
        /// Numeric overflow.
        const OE = 1 << 3;
        /// Numeric underflow.
        const UE = 1 << 4;
        /// Inexact result (precision).
        const PE = 1 << 5;
    }
}

impl Flags {
    /// The exceptions that are detected before a result is computed (SDM vol. 1, section 11.5.2):
    /// while one of them is unmasked and raised by any element of a packed operand, none of the
    /// others is reported.
    pub const PRE_COMPUTATION: Self = Self::IE.union(Self::DE).union(Self::ZE);
}

/// Rounding control, encoded as in MXCSR.RC, the x87 control word and the immediate of ROUNDSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest value, the even one of two (00B).
    Nearest,
    /// Toward negative infinity (01B).
    Down,
    /// Toward positive infinity (10B).
    Up,
    /// Toward zero (11B).
    Zero,
}

impl Rounding {
    /// Decodes the low two bits of `bits`.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }
}

/// x87 precision control: the number of significand bits to which FADD, FSUB, FMUL, FDIV and FSQRT
/// round (SDM vol. 1, section 8.1.5.2). Other instructions and other formats do not look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits (00B).
    Single,
    /// 53 bits (10B).
    Double,
    /// 64 bits (11B, and the reserved 01B).
    Extended,
}

impl Precision {
    /// Decodes the low two bits of `bits`, the PC field of the control word.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        match bits & 3 {
            0 => Self::Single,
            2 => Self::Double,
            _ => Self::Extended,
        }
    }

    /// Significand bits, the integer bit included.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Single => 24,
            Self::Double => 53,
            Self::Extended => 64,
        }
    }
}

/// The floating-point environment of one instruction.
///
/// An operation whose unmasked exception forbids a result (IE, DE, ZE; for SSE any) returns a value
/// all the same; the caller looks at [`Env::pending`] and drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Env {
    /// Rounding control.
    pub rounding: Rounding,
    /// x87 precision control; looked at only for results in [`F80`](super::F80).
    pub precision: Precision,
    /// Denormal binary32 and binary64 operands count as zeros of their sign (MXCSR.DAZ).
    pub daz: bool,
    /// A tiny result becomes a zero while underflow is masked (MXCSR.FTZ).
    pub ftz: bool,
    /// Masked exceptions: a set bit masks.
    pub masks: Flags,
    /// Sticky flags: those at the start, and every exception raised since.
    pub flags: Flags,
    /// Unmasked exceptions that were raised since the start.
    pub pending: Flags,
    /// The last rounding increased the magnitude: C1 of the x87 status word after an inexact
    /// result.
    pub rounded_up: bool,
}

impl Env {
    /// The environment that MXCSR describes (SDM vol. 1, section 10.2.3).
    #[inline(always)]
    pub const fn sse(mxcsr: u32) -> Self {
        Self {
            rounding: Rounding::from_bits(mxcsr >> 13),
            precision: Precision::Extended,
            daz: mxcsr & 1 << 6 != 0,
            ftz: mxcsr & 1 << 15 != 0,
            masks: Flags::from_bits_truncate((mxcsr >> 7) as u8),
            flags: Flags::from_bits_truncate(mxcsr as u8),
            pending: Flags::empty(),
            rounded_up: false,
        }
    }

    /// The environment that an x87 control word describes, with no flag set (SDM vol. 1, section
    /// 8.1.5).
    #[inline(always)]
    pub const fn x87(control: u16) -> Self {
        Self {
            rounding: Rounding::from_bits((control >> 10) as u32),
            precision: Precision::from_bits(control >> 8),
            daz: false,
            ftz: false,
            masks: Flags::from_bits_truncate(control as u8),
            flags: Flags::empty(),
            pending: Flags::empty(),
            rounded_up: false,
        }
    }

    /// Records exceptions.
    #[inline(always)]
    pub fn raise(&mut self, raised: Flags) {
        self.flags |= raised;
        self.pending |= raised.difference(self.masks);
    }

    /// Records a denormal operand; `true` if the exception is unmasked, so that no result is
    /// computed.
    #[inline]
    pub(super) fn raise_denormal(&mut self) -> bool {
        self.raise(Flags::DE);
        !self.masks.contains(Flags::DE)
    }
}
