//! The accelerator of Linux hosts whose processors run guests: KVM. See docs/accelerators.md.

mod abort_page;
mod clock;
mod debug;
mod exit;
mod host;
mod interrupts;
mod ioctls;
mod kick;
mod msrs;
mod pages;
mod probe;
mod sgx;
mod state;
mod trap;
mod vcpu;
mod vepc;
mod vm;
mod xsave;

pub use abort_page::StandIn;
pub(super) use host::NoTrap;
pub use host::{Host, KvmError};
pub(super) use ioctls::IOCTLS;
pub use ioctls::Ioctls;
pub use sgx::{HostSgx, HostSgxError, VepcResetError};
pub(super) use vm::{KvmVm, cpuid};
