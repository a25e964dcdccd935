//! Tests of general-purpose instructions, by family.

mod addressing;
mod transfer;
