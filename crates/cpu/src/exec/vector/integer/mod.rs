//! Packed integer instructions, from MMX to SSE4.2 (SDM Vol. 1, 9.4, 11.4.2, 12.6, 12.10, 12.11).

pub(crate) mod arithmetic;
pub(crate) mod compare;
pub(crate) mod extend;
pub(crate) mod horizontal;
pub(crate) mod insert;
pub(crate) mod logic;
pub(crate) mod multiply;
pub(crate) mod pack;
pub(crate) mod shift;
pub(crate) mod shuffle;

use crate::exec::table::Row;

/// The rows of integer vector instructions, by family.
pub(in crate::exec) const FAMILIES: &[&[Row]] = &[
    arithmetic::ROWS,
    multiply::ROWS,
    horizontal::ROWS,
    compare::ROWS,
    logic::ROWS,
    shift::ROWS,
    pack::ROWS,
    extend::ROWS,
    shuffle::ROWS,
    insert::ROWS,
];
