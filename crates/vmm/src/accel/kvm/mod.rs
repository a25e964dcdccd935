//! The accelerator of Linux hosts whose processors run guests: KVM. See docs/accelerators.md.

mod clock;
mod debug;
mod exit;
mod host;
mod interrupts;
mod ioctls;
mod kick;
mod msrs;
mod pages;
mod state;
mod vcpu;
mod vm;
mod xsave;

pub use host::{Host, KvmError};
pub(super) use ioctls::IOCTLS;
pub use ioctls::Ioctls;
pub(super) use vm::{KvmVm, cpuid};
