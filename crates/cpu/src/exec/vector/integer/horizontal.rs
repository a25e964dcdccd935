//! Horizontal addition and subtraction, sums of differences, horizontal minimum.

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{mmx, sse, sse_imm};
use crate::exec::vector::lane::{Element, Lane};

/// Both forms: the MMX one operates on the two registers as the halves of one lane.
macro_rules! horizontal {
    ($f:expr) => {
        |instruction, op| {
            if instruction.op0_register().is_mm() {
                mmx!(op, u64, |a, b| $f([a, b], [0; 2])[0])
            } else {
                sse!(op, M128, $f)
            }
        }
    };
}

vector_rows! {
    Phaddw | Vphaddw => choose(horizontal!(|a, b| pairs_of_words(a, b, i16::wrapping_add))),
    Phaddsw | Vphaddsw => choose(horizontal!(|a, b| pairs_of_words(a, b, i16::saturating_add))),
    Phaddd | Vphaddd => choose(horizontal!(|a, b| pairs_of_doublewords(a, b, i32::wrapping_add))),
    Phsubw | Vphsubw => choose(horizontal!(|a, b| pairs_of_words(a, b, i16::wrapping_sub))),
    Phsubsw | Vphsubsw => choose(horizontal!(|a, b| pairs_of_words(a, b, i16::saturating_sub))),
    Phsubd | Vphsubd => choose(horizontal!(|a, b| pairs_of_doublewords(a, b, i32::wrapping_sub))),
    Mpsadbw | Vmpsadbw => choose(|_, op| sse_imm!(op, M128, mpsadbw, 3)),
    Phminposuw | Vphminposuw => choose(|_, op| sse!(op, M128, |_, b| phminposuw(b))),
}

/// PHADDW, PHADDSW, PHSUBW, PHSUBSW: neighbours of `a`, then of `b`.
#[inline(always)]
#[must_use]
pub(crate) fn pairs_of_words(a: Lane, b: Lane, f: impl Fn(i16, i16) -> i16) -> Lane {
    let (a, b) = (i16::split(a), i16::split(b));
    i16::join(std::array::from_fn(|i| {
        let (from, i) = if i < 4 { (&a, i) } else { (&b, i - 4) };
        f(from[2 * i], from[2 * i + 1])
    }))
}

/// PHADDD, PHSUBD: neighbours of `a`, then of `b`.
#[inline(always)]
#[must_use]
pub(crate) fn pairs_of_doublewords(a: Lane, b: Lane, f: impl Fn(i32, i32) -> i32) -> Lane {
    let (a, b) = (i32::split(a), i32::split(b));
    i32::join([f(a[0], a[1]), f(a[2], a[3]), f(b[0], b[1]), f(b[2], b[3])])
}

/// MPSADBW: sums of absolute differences of four bytes of `b` with eight places of `a`.
#[inline(always)]
#[must_use]
pub(crate) fn mpsadbw(a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b) = (u8::split(a), u8::split(b));
    let a_offset = usize::from(imm >> 2 & 1) * 4;
    let b_offset = usize::from(imm & 3) * 4;
    u16::join(std::array::from_fn(|i| {
        (0..4).map(|j| u16::from(a[a_offset + i + j].abs_diff(b[b_offset + j]))).sum()
    }))
}

/// PHMINPOSUW: the smallest word and where it first is.
#[inline(always)]
#[must_use]
pub(crate) fn phminposuw(b: Lane) -> Lane {
    let words = u16::split(b);
    let mut least = 0;
    for i in 1..8 {
        if words[i] < words[least] {
            least = i;
        }
    }
    [u64::from(words[least]) | (least as u64) << 16, 0]
}
