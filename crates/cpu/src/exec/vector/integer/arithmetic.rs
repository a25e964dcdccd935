//! Addition, subtraction, averages, minima, maxima, absolute values and signs of packed integers.

use iced_x86::{Instruction, Mnemonic};

use crate::exec::vector::form::packed;
use crate::exec::vector::lane::{Element, Lane, map, zip};
use crate::op::{Handler, Op};

/// The handler of an elementwise arithmetic instruction.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    use Mnemonic::{
        Pabsb, Pabsd, Pabsw, Paddb, Paddd, Paddq, Paddsb, Paddsw, Paddusb, Paddusw, Paddw, Pavgb,
        Pavgw, Pmaxsb, Pmaxsd, Pmaxsw, Pmaxub, Pmaxud, Pmaxuw, Pminsb, Pminsd, Pminsw, Pminub,
        Pminud, Pminuw, Psadbw, Psignb, Psignd, Psignw, Psubb, Psubd, Psubq, Psubsb, Psubsw,
        Psubusb, Psubusw, Psubw,
    };
    Some(match instruction.mnemonic() {
        Paddb => packed!(instruction, op, |a, b| zip(a, b, u8::wrapping_add)),
        Paddw => packed!(instruction, op, |a, b| zip(a, b, u16::wrapping_add)),
        Paddd => packed!(instruction, op, |a, b| zip(a, b, u32::wrapping_add)),
        Paddq => packed!(instruction, op, |a, b| zip(a, b, u64::wrapping_add)),
        Paddsb => packed!(instruction, op, |a, b| zip(a, b, i8::saturating_add)),
        Paddsw => packed!(instruction, op, |a, b| zip(a, b, i16::saturating_add)),
        Paddusb => packed!(instruction, op, |a, b| zip(a, b, u8::saturating_add)),
        Paddusw => packed!(instruction, op, |a, b| zip(a, b, u16::saturating_add)),
        Psubb => packed!(instruction, op, |a, b| zip(a, b, u8::wrapping_sub)),
        Psubw => packed!(instruction, op, |a, b| zip(a, b, u16::wrapping_sub)),
        Psubd => packed!(instruction, op, |a, b| zip(a, b, u32::wrapping_sub)),
        Psubq => packed!(instruction, op, |a, b| zip(a, b, u64::wrapping_sub)),
        Psubsb => packed!(instruction, op, |a, b| zip(a, b, i8::saturating_sub)),
        Psubsw => packed!(instruction, op, |a, b| zip(a, b, i16::saturating_sub)),
        Psubusb => packed!(instruction, op, |a, b| zip(a, b, u8::saturating_sub)),
        Psubusw => packed!(instruction, op, |a, b| zip(a, b, u16::saturating_sub)),
        Pavgb => packed!(instruction, op, pavgb),
        Pavgw => packed!(instruction, op, pavgw),
        Pminub => packed!(instruction, op, |a, b| zip(a, b, u8::min)),
        Pminuw => packed!(instruction, op, |a, b| zip(a, b, u16::min)),
        Pminud => packed!(instruction, op, |a, b| zip(a, b, u32::min)),
        Pminsb => packed!(instruction, op, |a, b| zip(a, b, i8::min)),
        Pminsw => packed!(instruction, op, |a, b| zip(a, b, i16::min)),
        Pminsd => packed!(instruction, op, |a, b| zip(a, b, i32::min)),
        Pmaxub => packed!(instruction, op, |a, b| zip(a, b, u8::max)),
        Pmaxuw => packed!(instruction, op, |a, b| zip(a, b, u16::max)),
        Pmaxud => packed!(instruction, op, |a, b| zip(a, b, u32::max)),
        Pmaxsb => packed!(instruction, op, |a, b| zip(a, b, i8::max)),
        Pmaxsw => packed!(instruction, op, |a, b| zip(a, b, i16::max)),
        Pmaxsd => packed!(instruction, op, |a, b| zip(a, b, i32::max)),
        Psadbw => packed!(instruction, op, psadbw),
        Pabsb => packed!(instruction, op, |_, b| map(b, i8::wrapping_abs)),
        Pabsw => packed!(instruction, op, |_, b| map(b, i16::wrapping_abs)),
        Pabsd => packed!(instruction, op, |_, b| map(b, i32::wrapping_abs)),
        Psignb => packed!(instruction, op, psignb),
        Psignw => packed!(instruction, op, psignw),
        Psignd => packed!(instruction, op, psignd),
        _ => return None,
    })
}

/// PAVGB: the average, rounded up.
#[inline(always)]
#[must_use]
pub fn pavgb(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: u8, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8)
}

/// PAVGW.
#[inline(always)]
#[must_use]
pub fn pavgw(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: u16, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16)
}

/// PSADBW: the sum of absolute differences in each quadword.
#[inline(always)]
#[must_use]
pub fn psadbw(a: Lane, b: Lane) -> Lane {
    let (a, b) = (u8::split(a), u8::split(b));
    std::array::from_fn(|half| {
        (half * 8..half * 8 + 8).map(|i| u64::from(a[i].abs_diff(b[i]))).sum()
    })
}

macro_rules! sign {
    ($($name:ident, $mnemonic:literal, $t:ty);*) => {$(
        #[doc = $mnemonic]
        #[doc = ": negated, zeroed or kept by the sign of the second operand."]
        #[inline(always)]
        #[must_use]
        pub fn $name(a: Lane, b: Lane) -> Lane {
            zip(a, b, |a: $t, b| match b {
                ..0 => a.wrapping_neg(),
                0 => 0,
                _ => a,
            })
        }
    )*};
}
sign!(psignb, "PSIGNB", i8; psignw, "PSIGNW", i16; psignd, "PSIGND", i32);
