//! Names and layouts of the x86-64 architecture, as the Intel SDM gives them.
//!
//! This crate holds no behaviour: registers and their bits, segments, MSR numbers, CPUID leaves,
//! page-table bits, exceptions, VMX and the address newtypes that every other crate of Cloister speaks.

#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

pub mod addr;
pub mod cpuid;
pub mod exception;
pub mod gpr;
pub mod msr;
pub mod paging;
pub mod regs;
pub mod segment;
pub mod vmcs;
pub mod vmx;

pub use addr::{Gpa, Gva, La, PAGE_SIZE};
pub use exception::{Exception, PageFaultCode, UnknownVector, Vector};
pub use gpr::Gpr;
pub use segment::{Rights, Segment, TableRegister};
