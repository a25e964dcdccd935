//! AES, carry-less multiplication and SHA (SDM Vol. 1, 12.13, 12.14 and 5.19).

pub(crate) mod aes;
pub(crate) mod clmul;
pub(crate) mod sha;

use crate::exec::table::Row;

/// The rows of cryptographic instructions, by family.
pub(in crate::exec) const FAMILIES: &[&[Row]] = &[aes::ROWS, clmul::ROWS, sha::ROWS];
