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

use crate::exec::table::Row;

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

/// As [`by_size`], of a handler whose last generic argument is whether it has a memory operand.
macro_rules! by_size_and_memory {
    ($op:expr, $handler:ident $([$($arg:tt),+])?) => {
        if $op.mem_operand == $crate::op::NO_MEMORY {
            $crate::exec::general::by_size!($op.size, $handler[$($($arg,)+)? false])
        } else {
            $crate::exec::general::by_size!($op.size, $handler[$($($arg,)+)? true])
        }
    };
}
use by_size_and_memory;

/// The rows of general-purpose instructions, by family.
pub(super) const FAMILIES: &[&[Row]] = &[
    mov::ROWS,
    arithmetic::ROWS,
    lea::ROWS,
    push::ROWS,
    branch::ROWS,
    call::ROWS,
    condition::ROWS,
    convert::ROWS,
    shift::ROWS,
    double_shift::ROWS,
    exchange::ROWS,
    multiply::ROWS,
    divide::ROWS,
    decimal::ROWS,
    bit_test::ROWS,
    bit_scan::ROWS,
    bit_field::ROWS,
    crc32::ROWS,
    string::ROWS,
    io::ROWS,
    frame::ROWS,
    flag::ROWS,
    nop::ROWS,
    random::ROWS,
];

#[cfg(test)]
mod tests;
