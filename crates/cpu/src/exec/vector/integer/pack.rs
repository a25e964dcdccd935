//! Packing with saturation, and unpacking, which interleaves.

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{mmx, sse};
use crate::exec::vector::lane::{Element, Lane};

macro_rules! packing {
    ($f:ident) => {
        |instruction, op| {
            if instruction.op0_register().is_mm() {
                mmx!(op, u64, |a, b| $f([a, b], [0; 2])[0])
            } else {
                sse!(op, M128, $f)
            }
        }
    };
}
// The low MMX form reads 32 bits of memory, the high one 64 (SDM Vol. 2B, PUNPCKLBW).
macro_rules! low {
    ($t:ty) => {
        |instruction, op| {
            if instruction.op0_register().is_mm() {
                mmx!(op, u32, |a, b| interleave_low::<$t>([a, 0], [b, 0])[0])
            } else {
                sse!(op, M128, |a, b| interleave_low::<$t>(a, b))
            }
        }
    };
}
macro_rules! high {
    ($t:ty) => {
        |instruction, op| {
            if instruction.op0_register().is_mm() {
                mmx!(op, u64, |a, b| interleave_low::<$t>([a, 0], [b, 0])[1])
            } else {
                sse!(op, M128, |a, b| interleave_low::<$t>([a[1], 0], [b[1], 0]))
            }
        }
    };
}

vector_rows! {
    Packsswb | Vpacksswb => choose(packing!(packsswb)),
    Packssdw | Vpackssdw => choose(packing!(packssdw)),
    Packuswb | Vpackuswb => choose(packing!(packuswb)),
    Packusdw | Vpackusdw => choose(packing!(packusdw)),
    Punpcklbw | Vpunpcklbw => choose(low!(u8)),
    Punpcklwd | Vpunpcklwd => choose(low!(u16)),
    Punpckldq | Unpcklps | Vpunpckldq | Vunpcklps => choose(low!(u32)),
    Punpcklqdq | Unpcklpd | Vpunpcklqdq | Vunpcklpd => choose(|_, op| {
        sse!(op, M128, |a, b| [a[0], b[0]])
    }),
    Punpckhbw | Vpunpckhbw => choose(high!(u8)),
    Punpckhwd | Vpunpckhwd => choose(high!(u16)),
    Punpckhdq | Unpckhps | Vpunpckhdq | Vunpckhps => choose(high!(u32)),
    Punpckhqdq | Unpckhpd | Vpunpckhqdq | Vunpckhpd => choose(|_, op| {
        sse!(op, M128, |a, b| [a[1], b[1]])
    }),
}

/// The elements of the low halves of `a` and `b` by turns.
#[inline(always)]
#[must_use]
pub(crate) fn interleave_low<T: Element>(a: Lane, b: Lane) -> Lane {
    let (mut result, a, b) = (T::split(a), T::split(a), T::split(b));
    let pairs = a.as_ref().iter().zip(b.as_ref());
    for (target, (&x, &y)) in result.as_mut().chunks_exact_mut(2).zip(pairs) {
        target[0] = x;
        target[1] = y;
    }
    T::join(result)
}

macro_rules! pack {
    ($($name:ident, $mnemonic:literal, $from:ty, $to:ty, $half:literal);*) => {$(
        #[doc = $mnemonic]
        #[doc = ": saturates the signed elements of `a`, then those of `b`."]
        #[inline(always)]
        #[must_use]
        pub(crate) fn $name(a: Lane, b: Lane) -> Lane {
            let (a, b) = (<$from>::split(a), <$from>::split(b));
            <$to>::join(std::array::from_fn(|i| {
                let x = if i < $half { a[i % $half] } else { b[i % $half] };
                x.clamp(<$to>::MIN as $from, <$to>::MAX as $from) as $to
            }))
        }
    )*};
}
pack!(
    packsswb, "PACKSSWB", i16, i8, 8; packssdw, "PACKSSDW", i32, i16, 4;
    packuswb, "PACKUSWB", i16, u8, 8; packusdw, "PACKUSDW", i32, u16, 4
);
