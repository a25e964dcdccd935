//! Tests of general-purpose instructions, by family.

mod addressing;
mod operand_order;
mod transfer;
