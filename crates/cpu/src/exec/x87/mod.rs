//! The x87 FPU (SDM Vol. 1, chapter 8).

mod arithmetic;
mod compare;
mod control;
mod environment;
mod load;
mod register;
mod report;
mod store;
mod transcendental;

use crate::exec::table::Row;

#[cfg(test)]
mod tests;

/// The rows of x87 instructions, by family.
pub(super) const FAMILIES: &[&[Row]] = &[
    load::ROWS,
    store::ROWS,
    arithmetic::ROWS,
    compare::ROWS,
    register::ROWS,
    transcendental::ROWS,
    control::ROWS,
    environment::ROWS,
];
