//! Instructions that came with AVX and AVX2 and have no SSE counterpart (SDM Vol. 1, 14.1.3 and
//! 14.6). Those that have one are with it.

pub mod broadcast;
pub mod element;
pub mod gather;
pub mod halves;
pub mod masked;
pub mod permute;
pub mod zero;

use iced_x86::Instruction;

use crate::op::{Handler, Op};

/// The handler of an instruction that only VEX prefixes encode.
pub fn select(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    broadcast::select(instruction, op)
        .or_else(|| halves::select(instruction, op))
        .or_else(|| permute::select(instruction, op))
        .or_else(|| masked::select(instruction, op))
        .or_else(|| gather::select(instruction, op))
        .or_else(|| zero::select(instruction))
}
