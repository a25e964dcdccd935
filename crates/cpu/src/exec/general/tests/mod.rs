//! Tests of general-purpose instructions, by family.

mod transfer;
