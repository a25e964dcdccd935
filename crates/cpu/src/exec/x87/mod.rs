//! The x87 FPU (SDM Vol. 1, chapter 8).

mod arithmetic;
mod compare;
mod control;
mod environment;
mod load;
mod register;
mod report;

mod store;
mod transcendental;

#[cfg(test)]
mod tests;

use iced_x86::Instruction;

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// The handler of an x87 instruction.
pub fn select(instruction: &Instruction, mode: Mode, op: &mut Op) -> Option<Handler> {
    load::select(instruction, op)
        .or_else(|| store::select(instruction, op))
        .or_else(|| arithmetic::select(instruction, op))
        .or_else(|| compare::select(instruction, op))
        .or_else(|| register::select(instruction))
        .or_else(|| transcendental::select(instruction))
        .or_else(|| control::select(instruction))
        .or_else(|| environment::select(instruction, mode, op))
}
