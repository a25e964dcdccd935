//! Shuffles, alignment and blends.

use crate::cpu::Cpu;
use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{by_form, mmx, mmx_imm, sse, sse_imm};
use crate::exec::vector::lane::{Element, Lane};
use crate::exit::Exec;
use crate::op::{Op, VEX_256};

/// Blends by the sign bits of a register: XMM0 without a VEX prefix.
macro_rules! variable_blend {
    ($op:expr, $t:ty) => {{
        extern "C" fn run<const FORM: u8, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
            cpu.check_form::<FORM>()?;
            let blend = |a, b, mask| blend_by_sign::<$t>(a, b, mask, |m| m < 0);
            let mask = cpu.arch.vector.ymm(op.fourth());
            if FORM == VEX_256 {
                let b = cpu.ymm_source::<KIND>(op)?;
                let a = cpu.arch.vector.ymm(op.third);
                let result = [blend(a[0], b[0], mask[0]), blend(a[1], b[1], mask[1])];
                cpu.arch.vector.set_ymm(op.dst, result);
            } else {
                let b = cpu.xmm_source::<FORM, KIND>(op)?;
                let a = cpu.arch.vector.xmm(op.third);
                cpu.arch.vector.set_low::<FORM>(op.dst, blend(a, b, mask[0]));
            }
            Ok(())
        }
        by_form!($op, run, M128)
    }};
}

vector_rows! {
    Pshufb | Vpshufb => choose(|instruction, op| {
        if instruction.op0_register().is_mm() {
            mmx!(op, u64, pshufb_mmx)
        } else {
            sse!(op, M128, pshufb)
        }
    }),
    Pshufd | Vpshufd => choose(|_, op| {
        sse_imm!(op, M128, |_, b, imm| shuffle_doublewords(b, b, imm))
    }),
    Shufps | Vshufps => choose(|_, op| sse_imm!(op, M128, shuffle_doublewords)),
    Shufpd | Vshufpd => choose(|_, op| sse_imm!(op, M128, shufpd, 2)),
    Pshuflw | Vpshuflw => choose(|_, op| {
        sse_imm!(op, M128, |_, b: Lane, imm| [shuffle_words(b[0], imm), b[1]])
    }),
    Pshufhw | Vpshufhw => choose(|_, op| {
        sse_imm!(op, M128, |_, b: Lane, imm| [b[0], shuffle_words(b[1], imm)])
    }),
    Pshufw => choose(|_, op| mmx_imm!(op, u64, |_, b, imm| shuffle_words(b, imm))),
    Palignr | Vpalignr => choose(|instruction, op| {
        if instruction.op0_register().is_mm() {
            mmx_imm!(op, u64, palignr_mmx)
        } else {
            sse_imm!(op, M128, palignr)
        }
    }),
    Pblendw | Vpblendw => choose(|_, op| sse_imm!(op, M128, blend::<u16>)),
    Blendps | Vblendps | Vpblendd => choose(|_, op| sse_imm!(op, M128, blend::<u32>, 4)),
    Blendpd | Vblendpd => choose(|_, op| sse_imm!(op, M128, blend::<u64>, 2)),
    Pblendvb | Vpblendvb => choose(|_, op| variable_blend!(op, i8)),
    Blendvps | Vblendvps => choose(|_, op| variable_blend!(op, i32)),
    Blendvpd | Vblendvpd => choose(|_, op| variable_blend!(op, i64)),
}

/// PSHUFB: bytes of `a` picked by `b`; zero where its byte has the top bit set.
#[inline(always)]
#[must_use]
pub(crate) fn pshufb(a: Lane, b: Lane) -> Lane {
    let a = u8::split(a);
    let b = u8::split(b);
    u8::join(b.map(|pick| if pick & 0x80 != 0 { 0 } else { a[usize::from(pick & 15)] }))
}

/// PSHUFB of MMX registers.
#[inline(always)]
#[must_use]
pub(crate) fn pshufb_mmx(a: u64, b: u64) -> u64 {
    // Eight bytes: the pick is of three bits.
    pshufb([a, 0], [b & 0x8787_8787_8787_8787, 0])[0]
}

/// SHUFPS and, of one operand, PSHUFD: two doublewords of `a`, then two of `b`.
#[inline(always)]
#[must_use]
pub(crate) fn shuffle_doublewords(a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b) = (u32::split(a), u32::split(b));
    let pick = |n: u8| usize::from(imm >> (2 * n) & 3);
    u32::join([a[pick(0)], a[pick(1)], b[pick(2)], b[pick(3)]])
}

/// SHUFPD.
#[inline(always)]
#[must_use]
pub(crate) fn shufpd(a: Lane, b: Lane, imm: u8) -> Lane {
    [a[usize::from(imm & 1)], b[usize::from(imm >> 1 & 1)]]
}

/// PSHUFLW, PSHUFHW and PSHUFW: the words of a quadword.
#[inline(always)]
#[must_use]
pub(crate) fn shuffle_words(quadword: u64, imm: u8) -> u64 {
    (0..4).fold(0, |result, n| {
        let word = quadword >> (16 * (imm >> (2 * n) & 3)) & 0xffff;
        result | word << (16 * n)
    })
}

/// PALIGNR: 16 bytes of `a:b` from byte `imm` on.
#[inline(always)]
#[must_use]
pub(crate) fn palignr(a: Lane, b: Lane, imm: u8) -> Lane {
    let mut bytes = [0; 64];
    bytes[..16].copy_from_slice(&u8::split(b));
    bytes[16..32].copy_from_slice(&u8::split(a));
    let start = usize::from(imm).min(32);
    u8::join(std::array::from_fn(|i| bytes[start + i]))
}

/// PALIGNR of MMX registers.
#[inline(always)]
#[must_use]
pub(crate) fn palignr_mmx(a: u64, b: u64, imm: u8) -> u64 {
    let both = u128::from(a) << 64 | u128::from(b);
    both.checked_shr(u32::from(imm) * 8).unwrap_or(0) as u64
}

/// BLENDPS, BLENDPD, PBLENDW: elements of `b` where `imm` has a one, else of `a`.
#[inline(always)]
#[must_use]
pub(crate) fn blend<T: Element>(a: Lane, b: Lane, imm: u8) -> Lane {
    let mut result = T::split(a);
    for (i, (x, &y)) in result.as_mut().iter_mut().zip(T::split(b).as_ref()).enumerate() {
        if imm >> (i & 7) & 1 != 0 {
            *x = y;
        }
    }
    T::join(result)
}

/// BLENDVPS, BLENDVPD, PBLENDVB: elements of `b` where `chosen` of the mask's element.
#[inline(always)]
#[must_use]
pub(crate) fn blend_by_sign<T: Element>(
    a: Lane,
    b: Lane,
    mask: Lane,
    chosen: impl Fn(T) -> bool,
) -> Lane {
    let mut result = T::split(a);
    let others = T::split(b);
    let picks = T::split(mask);
    for ((x, &y), &m) in result.as_mut().iter_mut().zip(others.as_ref()).zip(picks.as_ref()) {
        if chosen(m) {
            *x = y;
        }
    }
    T::join(result)
}
