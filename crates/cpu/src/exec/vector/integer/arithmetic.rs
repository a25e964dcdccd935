//! Addition, subtraction, averages, minima, maxima, absolute values and signs of packed integers.

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::packed;
use crate::exec::vector::lane::{Element, Lane, map, zip};

vector_rows! {
    Paddb | Vpaddb => choose(packed!(|a, b| zip(a, b, u8::wrapping_add))),
    Paddw | Vpaddw => choose(packed!(|a, b| zip(a, b, u16::wrapping_add))),
    Paddd | Vpaddd => choose(packed!(|a, b| zip(a, b, u32::wrapping_add))),
    Paddq | Vpaddq => choose(packed!(|a, b| zip(a, b, u64::wrapping_add))),
    Paddsb | Vpaddsb => choose(packed!(|a, b| zip(a, b, i8::saturating_add))),
    Paddsw | Vpaddsw => choose(packed!(|a, b| zip(a, b, i16::saturating_add))),
    Paddusb | Vpaddusb => choose(packed!(|a, b| zip(a, b, u8::saturating_add))),
    Paddusw | Vpaddusw => choose(packed!(|a, b| zip(a, b, u16::saturating_add))),
    Psubb | Vpsubb => choose(packed!(|a, b| zip(a, b, u8::wrapping_sub))),
    Psubw | Vpsubw => choose(packed!(|a, b| zip(a, b, u16::wrapping_sub))),
    Psubd | Vpsubd => choose(packed!(|a, b| zip(a, b, u32::wrapping_sub))),
    Psubq | Vpsubq => choose(packed!(|a, b| zip(a, b, u64::wrapping_sub))),
    Psubsb | Vpsubsb => choose(packed!(|a, b| zip(a, b, i8::saturating_sub))),
    Psubsw | Vpsubsw => choose(packed!(|a, b| zip(a, b, i16::saturating_sub))),
    Psubusb | Vpsubusb => choose(packed!(|a, b| zip(a, b, u8::saturating_sub))),
    Psubusw | Vpsubusw => choose(packed!(|a, b| zip(a, b, u16::saturating_sub))),
    Pavgb | Vpavgb => choose(packed!(pavgb)),
    Pavgw | Vpavgw => choose(packed!(pavgw)),
    Pminub | Vpminub => choose(packed!(|a, b| zip(a, b, u8::min))),
    Pminuw | Vpminuw => choose(packed!(|a, b| zip(a, b, u16::min))),
    Pminud | Vpminud => choose(packed!(|a, b| zip(a, b, u32::min))),
    Pminsb | Vpminsb => choose(packed!(|a, b| zip(a, b, i8::min))),
    Pminsw | Vpminsw => choose(packed!(|a, b| zip(a, b, i16::min))),
    Pminsd | Vpminsd => choose(packed!(|a, b| zip(a, b, i32::min))),
    Pmaxub | Vpmaxub => choose(packed!(|a, b| zip(a, b, u8::max))),
    Pmaxuw | Vpmaxuw => choose(packed!(|a, b| zip(a, b, u16::max))),
    Pmaxud | Vpmaxud => choose(packed!(|a, b| zip(a, b, u32::max))),
    Pmaxsb | Vpmaxsb => choose(packed!(|a, b| zip(a, b, i8::max))),
    Pmaxsw | Vpmaxsw => choose(packed!(|a, b| zip(a, b, i16::max))),
    Pmaxsd | Vpmaxsd => choose(packed!(|a, b| zip(a, b, i32::max))),
    Psadbw | Vpsadbw => choose(packed!(psadbw)),
    Pabsb | Vpabsb => choose(packed!(|_, b| map(b, i8::wrapping_abs))),
    Pabsw | Vpabsw => choose(packed!(|_, b| map(b, i16::wrapping_abs))),
    Pabsd | Vpabsd => choose(packed!(|_, b| map(b, i32::wrapping_abs))),
    Psignb | Vpsignb => choose(packed!(psignb)),
    Psignw | Vpsignw => choose(packed!(psignw)),
    Psignd | Vpsignd => choose(packed!(psignd)),
}

/// PAVGB: the average, rounded up.
#[inline(always)]
#[must_use]
pub(crate) fn pavgb(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: u8, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8)
}

/// PAVGW.
#[inline(always)]
#[must_use]
pub(crate) fn pavgw(a: Lane, b: Lane) -> Lane {
    zip(a, b, |a: u16, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16)
}

/// PSADBW: the sum of absolute differences in each quadword.
#[inline(always)]
#[must_use]
pub(crate) fn psadbw(a: Lane, b: Lane) -> Lane {
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
        pub(crate) fn $name(a: Lane, b: Lane) -> Lane {
            zip(a, b, |a: $t, b| match b {
                ..0 => a.wrapping_neg(),
                0 => 0,
                _ => a,
            })
        }
    )*};
}
sign!(psignb, "PSIGNB", i8; psignw, "PSIGNW", i16; psignd, "PSIGND", i32);
