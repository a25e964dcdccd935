//! General-purpose instructions (SDM Vol. 1, chapter 7).

pub mod address;
pub mod arithmetic;
pub mod bit_field;
pub mod bit_scan;
pub mod bit_test;
pub mod branch;
pub mod call;
pub mod condition;
pub mod convert;
pub mod crc32;
pub mod decimal;
pub mod divide;
pub mod double_shift;
pub mod exchange;
pub mod flag;
pub mod frame;
pub mod io;
pub mod lea;
pub mod mov;
pub mod multiply;
pub mod nop;
pub mod push;
pub mod random;
pub mod shift;
pub mod stack;
pub mod string;
mod string_run;

use iced_x86::Instruction;

use crate::mode::Mode;
use crate::op::{Handler, Op};

/// Picks an instance of a handler that is generic over the operand's type, by its size in bytes;
/// further generic arguments follow in brackets.
macro_rules! by_size {
    ($size:expr, $handler:ident $([$($arg:tt),+])?) => {
        match $size {
            1 => $handler::<u8 $($(, $arg)+)?> as $crate::op::Handler,
            2 => $handler::<u16 $($(, $arg)+)?>,
            4 => $handler::<u32 $($(, $arg)+)?>,
            _ => $handler::<u64 $($(, $arg)+)?>,
        }
    };
}
use by_size;

/// The handler of a general-purpose instruction.
pub fn select(instruction: &Instruction, mode: Mode, op: &mut Op) -> Option<Handler> {
    mov::select(instruction, mode, op)
        .or_else(|| arithmetic::select(instruction, op))
        .or_else(|| lea::select(instruction, op))
        .or_else(|| push::select(instruction, mode, op))
        .or_else(|| branch::select(instruction, mode, op))
        .or_else(|| call::select(instruction, mode, op))
        .or_else(|| condition::select(instruction, op))
        .or_else(|| convert::select(instruction, op))
        .or_else(|| shift::select(instruction, op))
        .or_else(|| double_shift::select(instruction, op))
        .or_else(|| exchange::select(instruction, op))
        .or_else(|| multiply::select(instruction, op))
        .or_else(|| divide::select(instruction, op))
        .or_else(|| decimal::select(instruction, op))
        .or_else(|| bit_test::select(instruction, op))
        .or_else(|| bit_scan::select(instruction, op))
        .or_else(|| bit_field::select(instruction, op))
        .or_else(|| crc32::select(instruction, op))
        .or_else(|| string::select(instruction, op))
        .or_else(|| io::select(instruction, op))
        .or_else(|| frame::select(instruction, mode, op))
        .or_else(|| flag::select(instruction, op))
        .or_else(|| nop::select(instruction))
        .or_else(|| random::select(instruction, op))
}

#[cfg(test)]
mod tests;
