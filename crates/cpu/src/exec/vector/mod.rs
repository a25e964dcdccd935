//! MMX, SSE and the instructions that share their registers.

use iced_x86::Instruction;

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// XMM/YMM registers and MXCSR.
#[derive(Clone, Debug)]
pub struct VectorState {
    /// YMM0 to YMM15 as four quadwords each; XMM is the low two.
    pub ymm: [[u64; 4]; 16],
    /// MXCSR.
    pub mxcsr: u32,
}

impl Default for VectorState {
    fn default() -> Self {
        Self { ymm: [[0; 4]; 16], mxcsr: 0x1f80 }
    }
}

/// The handler of a vector instruction.
pub fn select(_instruction: &Instruction, _mode: Mode, _op: &mut Op) -> Option<Handler> {
    None
}
