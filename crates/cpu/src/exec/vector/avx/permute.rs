//! VPERMILPS, VPERMILPD in each lane; VPERMD, VPERMPS, VPERMQ, VPERMPD across them (SDM Vol. 2C).

use iced_x86::OpKind;

use crate::exec::table::{choose, vector_rows};
use crate::exec::vector::form::{sse, sse_imm, wide_imm};
use crate::exec::vector::integer::shuffle::{shuffle_doublewords, shufpd};
use crate::exec::vector::lane::{Element, Lane, Wide};

vector_rows! {
    Vpermilps => choose(|instruction, op| match instruction.op2_kind() {
        OpKind::Immediate8 => sse_imm!(op, M128, |_, b, imm| shuffle_doublewords(b, b, imm)),
        _ => sse!(op, M128, vpermilps),
    }),
    Vpermilpd => choose(|instruction, op| match instruction.op2_kind() {
        OpKind::Immediate8 => sse_imm!(op, M128, |_, b, imm| shufpd(b, b, imm), 2),
        _ => sse!(op, M128, vpermilpd),
    }),
    Vpermd | Vpermps => choose(|_, op| wide_imm!(op, |a, b, _| vpermd(a, b))),
    Vpermq | Vpermpd => choose(|_, op| wide_imm!(op, |_, b, imm| vpermq(b, imm))),
}

/// VPERMILPS: doublewords of `a` chosen by bits 1:0 of those of `b`.
#[inline(always)]
#[must_use]
pub(crate) fn vpermilps(a: Lane, b: Lane) -> Lane {
    let a = u32::split(a);
    u32::join(u32::split(b).map(|pick| a[(pick & 3) as usize]))
}

/// VPERMILPD: quadwords of `a` chosen by bit 1 of those of `b`.
#[inline(always)]
#[must_use]
pub(crate) fn vpermilpd(a: Lane, b: Lane) -> Lane {
    b.map(|pick| a[(pick >> 1 & 1) as usize])
}

/// VPERMD: doublewords of `b` chosen by bits 2:0 of those of `a`.
#[inline(always)]
#[must_use]
pub(crate) fn vpermd(a: Wide, b: Wide) -> Wide {
    let b = b.map(u32::split);
    a.map(|picks| {
        u32::join(u32::split(picks).map(|pick| b[(pick >> 2 & 1) as usize][(pick & 3) as usize]))
    })
}

/// VPERMQ: quadwords of `b` chosen by two bits of the immediate each.
#[inline(always)]
#[must_use]
pub(crate) fn vpermq(b: Wide, imm: u8) -> Wide {
    let pick = |n: u8| b[usize::from(imm >> (2 * n + 1) & 1)][usize::from(imm >> (2 * n) & 1)];
    [[pick(0), pick(1)], [pick(2), pick(3)]]
}
