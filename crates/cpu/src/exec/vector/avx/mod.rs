//! Instructions that came with AVX and AVX2 and have no SSE counterpart (SDM Vol. 1, 14.1.3 and
//! 14.6). Those that have one are with it.

pub(crate) mod broadcast;
pub(crate) mod element;
pub(crate) mod gather;
pub(crate) mod halves;
pub(crate) mod masked;
pub(crate) mod permute;
pub(crate) mod zero;

use crate::exec::table::Row;

/// The rows of instructions that only VEX prefixes encode, by family.
pub(in crate::exec) const FAMILIES: &[&[Row]] =
    &[broadcast::ROWS, halves::ROWS, permute::ROWS, masked::ROWS, gather::ROWS, zero::ROWS];
