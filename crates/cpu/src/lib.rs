//! A software x86-64 logical processor.
//!
//! A [`Vcpu`] executes guest code until something needs its owner: [`Vcpu::run`] returns an
//! [`Exit`]. It sees guest-physical memory through [`PhysMap`] and knows no devices.
//!
//! # How it executes
//!
//! Code is decoded once (iced-x86) and lowered to compact [`Op`]s, each with the function that
//! executes it. A block (`block.rs`) is a run of ops that never crosses a page and ends at a branch
//! or at an instruction that changes what the following bytes mean. The engine (`engine.rs`) finds
//! the next block, runs its ops, and looks at asynchronous events between blocks.
//!
//! # Rules for an instruction's handler
//!
//! A handler is `extern "C" fn(&mut Cpu, &Op) -> Exec`, which generated code can call.
//!
//! * It checks everything that can fault before it changes architectural state: a handler that
//!   returns `Err` leaves the processor as if it never ran, apart from the partial progress that
//!   the SDM grants to string instructions.
//! * During a block, [`ArchState::rip`] is stale: [`Cpu::op_rip`] and [`Cpu::next_rip`] tell where
//!   an op is. The last op of a block writes `rip`; the lowering appends one that does so where the
//!   last instruction is not an unconditional branch. A conditional branch that is taken writes
//!   `rip` and leaves the block with `Err(Stop::JUMP)`; one that is not taken does nothing.
//! * `Ok(())` means: retired. `Err(cpu.raise(exception))` faults. `Err(cpu.exit_with(exit))`
//!   hands the instruction to the owner with RIP unmoved.
//! * Memory is reached by [`Cpu::load`], [`Cpu::store`], [`Cpu::open`] with [`Cpu::close`], and
//!   [`Cpu::locked`] with linear addresses from [`Cpu::linear`]. They may return `Err` for reasons
//!   that are not faults (device access, code page, backing of EPC): pass every `Err` on.
//!
//! Instructions live in `exec`, a file for each family in the manual's order. Each family declares
//! the rows of its instructions beside their handlers: a table that is indexed by the decoder's
//! mnemonic says which handler runs, what ends a block, and what enclave mode forbids. An [`Op`]
//! keeps the mnemonic of what it executes.

#![warn(
    missing_debug_implementations,
    clippy::allow_attributes,
    clippy::semicolon_if_nothing_returned,
    clippy::tests_outside_test_module
)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

#[cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "registers are parts of wider ones")
)]
mod apic;
mod block;
mod complete;
mod controls;
mod cpu;
mod crowd;
mod debugger;
mod engine;
mod event;
mod excursion;
#[cfg_attr(
    not(test),
    expect(
        clippy::cast_possible_truncation,
        reason = "instructions cut values to the size of their operands"
    )
)]
mod exec;
mod exit;
mod fetch;
mod flags;
mod kicker;
#[cfg_attr(
    not(test),
    expect(
        clippy::cast_possible_truncation,
        reason = "numbers of registers, sizes and offsets in a block are small"
    )
)]
mod lower;
mod mem;
mod mode;
#[cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "flags and sizes are small")
)]
pub mod native;
mod op;
mod package;
mod phys;
mod run_state;
mod state;
mod statistics;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "fields of a VMCS are parts of wider ones")
)]
mod vmx;

pub use controls::{Controls, Features};
pub use cpu::Cpu;
pub use debugger::{DebugPoints, DebugStop, Watchpoint};
pub use engine::Vcpu;
pub use exec::sgx::port::Port as SgxPort;
pub use exit::{Exec, Exit, Stop};
pub use flags::Flags;
pub use kicker::Kicker;
pub use op::Op;
pub use package::Package;
pub use phys::{CodeTrack, PhysMap, PhysPage, RamPage, prepare_barrier};
pub use state::{Activity, ArchState, Fpu, Gprs, Msrs, Shadow, VectorState, VmxState};
pub use statistics::{Counts, Statistics};
