//! General-purpose instructions (SDM Vol. 1, chapter 7).

pub(crate) mod address;
pub(crate) mod arithmetic;
pub(crate) mod bit_field;
pub(crate) mod bit_scan;
pub(crate) mod bit_test;
pub(crate) mod branch;
pub(crate) mod call;
pub(crate) mod condition;
pub(crate) mod convert;
pub(crate) mod crc32;
pub(crate) mod decimal;
pub(crate) mod divide;
pub(crate) mod double_shift;
pub(crate) mod exchange;
pub(crate) mod flag;
pub(crate) mod frame;
pub(crate) mod io;
pub(crate) mod lea;
pub(crate) mod mov;
pub(crate) mod multiply;
pub(crate) mod nop;
pub(crate) mod push;
pub(crate) mod random;
pub(crate) mod shift;
pub(crate) mod stack;
pub(crate) mod string;
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
