//! AES, carry-less multiplication and SHA (SDM Vol. 1, 12.13, 12.14 and 5.19).

pub mod aes;
pub mod clmul;
pub mod sha;

use iced_x86::Instruction;

use crate::op::{Handler, Op};

/// The handler of a cryptographic instruction.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    aes::select(instruction, op)
        .or_else(|| clmul::select(instruction, op))
        .or_else(|| sha::select(instruction, op))
}
