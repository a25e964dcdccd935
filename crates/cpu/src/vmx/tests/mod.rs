//! VMX operation on bare metal: a hypervisor whose guest runs beside it.

mod entry;
mod ept;
mod event;
mod exit;
mod instruction;
pub(crate) mod machine;
mod sgx;
mod world;
