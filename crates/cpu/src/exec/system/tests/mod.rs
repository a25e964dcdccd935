//! Tests of system behaviour: bare-metal guests with descriptor tables, handlers and page tables.

mod alignment;
mod debug;
mod exceptions;
mod instruction_ends;
mod interrupts;
pub(crate) mod kernel;
mod modes;
mod paging;
mod returns;
mod stack_switch;
mod tasks;
mod translations;
