//! Packed integer instructions, from MMX to SSE4.2 (SDM Vol. 1, 9.4, 11.4.2, 12.6, 12.10, 12.11).

pub mod arithmetic;
pub mod compare;
pub mod extend;
pub mod horizontal;
pub mod insert;
pub mod logic;
pub mod multiply;
pub mod pack;
pub mod shift;
pub mod shuffle;

use iced_x86::Instruction;

use crate::op::{Handler, Op};

/// The handler of a packed integer instruction.
pub fn select(instruction: &Instruction, op: &Op) -> Option<Handler> {
    arithmetic::select(instruction, op)
        .or_else(|| multiply::select(instruction, op))
        .or_else(|| horizontal::select(instruction, op))
        .or_else(|| compare::select(instruction, op))
        .or_else(|| logic::select(instruction, op))
        .or_else(|| shift::select(instruction, op))
        .or_else(|| pack::select(instruction, op))
        .or_else(|| extend::select(instruction, op))
        .or_else(|| shuffle::select(instruction, op))
        .or_else(|| insert::select(instruction, op))
}
