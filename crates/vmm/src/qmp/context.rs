//! What commands know and can do.

use crate::accel::{GuestSgx, Translators};
use crate::config::MachineConfig;
use crate::cpuid::GuestCpuid;
use crate::machine::{Control, Machine};

/// The machine as commands see it.
#[derive(Clone, Debug)]
pub struct Context {
    /// What the machine was made from.
    pub config: MachineConfig,
    /// What CPUID says in the guest.
    pub cpuid: GuestCpuid,
    /// The guest's SGX, if it has any.
    pub sgx: Option<GuestSgx>,
    /// What translates the guest's code.
    pub translators: Translators,
    /// The handle to stop, reset and end it.
    pub control: Control,
}

impl Context {
    /// Commands for `machine`, which runs under `control`.
    #[must_use]
    pub fn new(machine: &Machine, control: &Control) -> Self {
        Self {
            config: machine.config().clone(),
            cpuid: machine.cpuid(),
            sgx: machine.sgx().cloned(),
            translators: machine.translators(),
            control: control.clone(),
        }
    }
}
