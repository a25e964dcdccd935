//! Saving and restoring state: FXSAVE, XSAVE and their relatives, and MXCSR
//! (SDM Vol. 1, 10.5 and chapter 13).

pub mod area;
pub mod fxsave;
pub mod image;
pub mod mxcsr;
pub mod xrstor;
pub mod xsave;

use iced_x86::Instruction;

use crate::op::Handler;

/// The handler of an instruction that saves or restores state.
pub fn select(instruction: &Instruction) -> Option<Handler> {
    mxcsr::select(instruction)
        .or_else(|| fxsave::select(instruction))
        .or_else(|| xsave::select(instruction))
        .or_else(|| xrstor::select(instruction))
}
