//! General-purpose instructions (SDM Vol. 1, chapter 7).

pub mod address;
pub mod mov;
pub mod stack;

use iced_x86::Instruction;

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// The handler of a general-purpose instruction.
pub fn select(instruction: &Instruction, mode: Mode, op: &mut Op) -> Option<Handler> {
    mov::select(instruction, mode, op)
}

#[cfg(test)]
mod tests;
