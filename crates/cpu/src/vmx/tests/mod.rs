//! VMX operation on bare metal: a hypervisor whose guest runs beside it.

mod apic_access;
mod controls;
mod entry;
mod ept;
mod event;
mod exit;
mod function;
mod guest_state;
mod host;
mod instruction;
pub(crate) mod machine;
mod random;
mod rewritten;
mod sgx;
mod shadow;
mod virtual_interrupt;
mod window;
mod world;
