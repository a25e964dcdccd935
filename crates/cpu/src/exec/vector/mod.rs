//! MMX, SSE and the instructions that share their registers.

pub mod crypto;
pub mod form;
pub mod fp;
pub mod integer;
pub mod lane;
pub mod mask;
pub mod mmx;
pub mod save;
pub mod state;
pub mod strings;
pub mod transfer;

use iced_x86::Instruction;

pub use state::{MXCSR_DEFAULT, MXCSR_MASK, VectorState};

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// The handler of a vector instruction.
pub fn select(instruction: &Instruction, _mode: Mode, op: &mut Op) -> Option<Handler> {
    transfer::select(instruction, op)
        .or_else(|| integer::select(instruction, op))
        .or_else(|| fp::select(instruction, op))
        .or_else(|| strings::select(instruction, op))
        .or_else(|| crypto::select(instruction, op))
        .or_else(|| mask::select(instruction))
        .or_else(|| mmx::select(instruction))
        .or_else(|| save::select(instruction))
}
