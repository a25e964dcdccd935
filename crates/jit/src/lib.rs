//! Translates guest code of 64-bit mode to code of an x86-64 host.
//!
//! Host and guest have one instruction set, so most instructions are emitted as themselves, on other
//! registers; memory is reached by a look into the processor's TLB; the flags stay in the host's flags
//! register as long as they can. What is not translated calls the interpreter's handler: see
//! [`cloister_cpu::native`].

#![cfg(target_arch = "x86_64")]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]
#![cfg_attr(
    not(test),
    expect(
        clippy::cast_possible_truncation,
        reason = "fields of instructions and offsets in code are parts of wider numbers"
    )
)]

mod arena;
mod asm;
mod block;
mod encode;
mod exits;
mod flags;
mod host;
mod links;
mod memory;
mod operate;
mod registers;
mod stubs;
mod vectors;

pub use block::Jit;

#[cfg(test)]
mod tests;
