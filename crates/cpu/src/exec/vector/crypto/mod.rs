//! AES, carry-less multiplication and SHA (SDM Vol. 1, 12.13, 12.14 and 5.19).

pub mod aes;
pub mod clmul;
pub mod sha;

use crate::exec::table::Row;

/// The rows of cryptographic instructions, by family.
pub(in crate::exec) const FAMILIES: &[&[Row]] = &[aes::ROWS, clmul::ROWS, sha::ROWS];
