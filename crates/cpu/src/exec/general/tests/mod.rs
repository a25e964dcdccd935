//! Tests of general-purpose instructions, by family.

mod addressing;
mod compatibility;
mod operand_order;
mod string_runs;
mod transfer;
