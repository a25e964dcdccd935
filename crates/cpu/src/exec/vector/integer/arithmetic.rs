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
        Psubusb, Psubusw, Psubw, Vpabsb, Vpabsd, Vpabsw, Vpaddb, Vpaddd, Vpaddq, Vpaddsb, Vpaddsw,
        Vpaddusb, Vpaddusw, Vpaddw, Vpavgb, Vpavgw, Vpmaxsb, Vpmaxsd, Vpmaxsw, Vpmaxub, Vpmaxud,
        Vpmaxuw, Vpminsb, Vpminsd, Vpminsw, Vpminub, Vpminud, Vpminuw, Vpsadbw, Vpsignb, Vpsignd,
        Vpsignw, Vpsubb, Vpsubd, Vpsubq, Vpsubsb, Vpsubsw, Vpsubusb, Vpsubusw, Vpsubw,
    };
    Some(match instruction.mnemonic() {
        Paddb | Vpaddb => packed!(instruction, op, |a, b| zip(a, b, u8::wrapping_add)),
        Paddw | Vpaddw => packed!(instruction, op, |a, b| zip(a, b, u16::wrapping_add)),
        Paddd | Vpaddd => packed!(instruction, op, |a, b| zip(a, b, u32::wrapping_add)),
        Paddq | Vpaddq => packed!(instruction, op, |a, b| zip(a, b, u64::wrapping_add)),
        Paddsb | Vpaddsb => packed!(instruction, op, |a, b| zip(a, b, i8::saturating_add)),
        Paddsw | Vpaddsw => packed!(instruction, op, |a, b| zip(a, b, i16::saturating_add)),
        Paddusb | Vpaddusb => packed!(instruction, op, |a, b| zip(a, b, u8::saturating_add)),
        Paddusw | Vpaddusw => packed!(instruction, op, |a, b| zip(a, b, u16::saturating_add)),
        Psubb | Vpsubb => packed!(instruction, op, |a, b| zip(a, b, u8::wrapping_sub)),
        Psubw | Vpsubw => packed!(instruction, op, |a, b| zip(a, b, u16::wrapping_sub)),
        Psubd | Vpsubd => packed!(instruction, op, |a, b| zip(a, b, u32::wrapping_sub)),
        Psubq | Vpsubq => packed!(instruction, op, |a, b| zip(a, b, u64::wrapping_sub)),
        Psubsb | Vpsubsb => packed!(instruction, op, |a, b| zip(a, b, i8::saturating_sub)),
        Psubsw | Vpsubsw => packed!(instruction, op, |a, b| zip(a, b, i16::saturating_sub)),
        Psubusb | Vpsubusb => packed!(instruction, op, |a, b| zip(a, b, u8::saturating_sub)),
        Psubusw | Vpsubusw => packed!(instruction, op, |a, b| zip(a, b, u16::saturating_sub)),
        Pavgb | Vpavgb => packed!(instruction, op, pavgb),
        Pavgw | Vpavgw => packed!(instruction, op, pavgw),
        Pminub | Vpminub => packed!(instruction, op, |a, b| zip(a, b, u8::min)),
        Pminuw | Vpminuw => packed!(instruction, op, |a, b| zip(a, b, u16::min)),
        Pminud | Vpminud => packed!(instruction, op, |a, b| zip(a, b, u32::min)),
        Pminsb | Vpminsb => packed!(instruction, op, |a, b| zip(a, b, i8::min)),
        Pminsw | Vpminsw => packed!(instruction, op, |a, b| zip(a, b, i16::min)),
        Pminsd | Vpminsd => packed!(instruction, op, |a, b| zip(a, b, i32::min)),
        Pmaxub | Vpmaxub => packed!(instruction, op, |a, b| zip(a, b, u8::max)),
        Pmaxuw | Vpmaxuw => packed!(instruction, op, |a, b| zip(a, b, u16::max)),
        Pmaxud | Vpmaxud => packed!(instruction, op, |a, b| zip(a, b, u32::max)),
        Pmaxsb | Vpmaxsb => packed!(instruction, op, |a, b| zip(a, b, i8::max)),
        Pmaxsw | Vpmaxsw => packed!(instruction, op, |a, b| zip(a, b, i16::max)),
        Pmaxsd | Vpmaxsd => packed!(instruction, op, |a, b| zip(a, b, i32::max)),
        Psadbw | Vpsadbw => packed!(instruction, op, psadbw),
        Pabsb | Vpabsb => packed!(instruction, op, |_, b| map(b, i8::wrapping_abs)),
        Pabsw | Vpabsw => packed!(instruction, op, |_, b| map(b, i16::wrapping_abs)),
        Pabsd | Vpabsd => packed!(instruction, op, |_, b| map(b, i32::wrapping_abs)),
        Psignb | Vpsignb => packed!(instruction, op, psignb),
        Psignw | Vpsignw => packed!(instruction, op, psignw),
        Psignd | Vpsignd => packed!(instruction, op, psignd),
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
