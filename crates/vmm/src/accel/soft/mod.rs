//! The software accelerator: machines on `cloister-cpu`, on any host.

mod excursion;
mod memory;
mod msr;
mod translators;
mod vcpu;
mod vm;

pub use translators::Translators;
pub(super) use vcpu::SoftVcpu;
pub(super) use vm::{SoftVm, cpuid};
