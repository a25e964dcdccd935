//! The software accelerator: machines on `cloister-cpu`, on any host.

mod memory;
mod msr;
mod vcpu;
mod vm;

pub(super) use vm::{SoftVm, cpuid};
