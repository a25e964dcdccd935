//! Which accelerator a machine gets.

use std::sync::Arc;
use std::{fmt, io};

use cloister_sgx::Capabilities;
use thiserror::Error;

use super::kvm::{Host, HostSgx, HostSgxError, IOCTLS, Ioctls, KvmError, NoTrap, StandIn};
use super::soft::Translators;
use crate::complaint::{Complaint, Fix, Phrase, Setting};
use crate::config::MachineConfig;
use crate::layout::Layout;

/// What is to execute a machine's processors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Choice {
    /// Software processors.
    #[default]
    Soft,
    /// The host's KVM, or no machine.
    Kvm,
    /// The host's KVM where it serves the machine well, or else software processors.
    Auto,
}

/// What executes a machine's processors.
#[derive(Clone, Debug)]
pub enum Accelerator {
    /// Software processors, with these translators of guest code.
    Soft(Translators),
    /// The host's KVM; with what stands in for SGX that the host does not have, if the guest has SGX.
    Kvm(Arc<Host>, Option<Arc<StandIn>>),
}

/// Why a machine cannot have KVM. [`AccelError::complaint`] says what to do.
#[derive(Debug, Error)]
pub enum AccelError {
    /// The host's KVM runs no machine.
    #[error("{0}")]
    Kvm(KvmError),
    /// The host's SGX.
    #[error("{0}")]
    Sgx(HostSgxError),
    /// The host has no SGX, and its KVM does not stop where a guest uses it.
    #[error("the host has no SGX, and its KVM {0}")]
    NoTrap(NoTrap),
    /// The host has no room for what is in the place of EPC.
    #[error("the host has no memory, or no mapping, for what is in the place of EPC: {0}")]
    StandIn(io::Error),
    /// What nested guests need, the host does not give.
    #[error("+vmx needs a host whose KVM gives guests VMX")]
    NoVmx,
    /// More memory than the host's processors give guests addresses for.
    #[error("the machine needs {needed} bits of guest-physical addresses and the host has {has}")]
    AddressSpace {
        /// Bits for the last byte of RAM and EPC.
        needed: u32,
        /// The host's.
        has: u32,
    },
}

impl AccelError {
    /// Why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        let soft = |first: &'static str| {
            Phrase::from(first).setting(Setting::Accelerator).text(" soft").into()
        };
        let fix: Fix = match self {
            Self::Sgx(error) => return error.complaint(),
            Self::Kvm(_) => soft("or write "),
            Self::NoTrap(_) => soft("or write "),
            Self::StandIn(_) => soft("write smaller sections, or "),
            Self::NoVmx => soft("write "),
            Self::AddressSpace { .. } => soft("write a smaller size, or "),
        };
        Complaint::new(Setting::Accelerator, self.to_string(), fix)
    }
}

/// Why [`Choice::Auto`] is not KVM.
#[derive(Debug)]
pub enum PassedOver {
    /// It cannot be.
    Impossible(AccelError),
    /// The host's processors run ring 3 of a guest alone.
    NotHardware,
    /// Linux takes the frequency of the time stamp counter from CPUID on Intel's processors alone, and finds no
    /// other clock in the machine to measure it with where KVM has none.
    NoClock,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible(error) => write!(f, "{error}"),
            Self::NotHardware => f.write_str(
                "the processor has neither VMX nor SVM, so KVM emulates ring 0 of a guest slowly",
            ),
            Self::NoClock => f.write_str(
                "the processor is not Intel's, and its KVM has no clock for a guest's Linux",
            ),
        }
    }
}

impl Accelerator {
    /// How the option calls it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Soft(_) => "soft",
            Self::Kvm(..) => "kvm",
        }
    }

    /// What executes the machine that `config` asks for.
    ///
    /// # Errors
    ///
    /// [`AccelError`] where it is to be KVM.
    pub fn choose(config: &MachineConfig, layout: &Layout) -> Result<Self, AccelError> {
        let soft = || Self::Soft(Translators::new(config.cpus, config.translate));
        match config.accelerator {
            Choice::Soft => Ok(soft()),
            Choice::Kvm => {
                let host = Host::open().map_err(AccelError::Kvm)?;
                if let Err(why) = is_hardware().and_then(|()| has_clock(&host)) {
                    tracing::warn!("under KVM as asked for, although {why}");
                }
                Self::kvm(host, config, layout)
            }
            Choice::Auto => Ok(Self::auto(config, layout).unwrap_or_else(|why| {
                tracing::warn!("software processors, since {why}");
                soft()
            })),
        }
    }

    fn auto(config: &MachineConfig, layout: &Layout) -> Result<Self, PassedOver> {
        Self::kvm(suitable()?, config, layout).map_err(PassedOver::Impossible)
    }

    fn kvm(host: Host, config: &MachineConfig, layout: &Layout) -> Result<Self, AccelError> {
        let mut stand_in = None;
        if !config.epc.is_empty() {
            match HostSgx::check(&host, config) {
                Err(HostSgxError::None) => {
                    host.check_trap().map_err(AccelError::NoTrap)?;
                    let translators = Translators::new(config.cpus, config.translate);
                    let made = StandIn::new(translators, layout).map_err(AccelError::StandIn)?;
                    stand_in = Some(Arc::new(made));
                }
                checked => checked.map_err(AccelError::Sgx)?,
            }
        }
        if config.cpu.vmx && !host.cpu.has_vmx() {
            return Err(AccelError::NoVmx);
        }
        let (needed, has) = (layout.address_bits(), host.cpu.physical_bits());
        if needed > has {
            return Err(AccelError::AddressSpace { needed, has });
        }
        Ok(Self::Kvm(Arc::new(host), stand_in))
    }

    /// Why a machine without SGX would not run under KVM by [`Choice::Auto`]; `None` if it would.
    #[must_use]
    pub fn why_not_kvm() -> Option<PassedOver> {
        suitable().err()
    }

    /// Why a machine with SGX would run on software processors by [`Choice::Auto`] where one without would not;
    /// `None` if it would not either.
    #[must_use]
    pub fn why_no_host_sgx() -> Option<AccelError> {
        let host = match Host::open() {
            Ok(host) => host,
            Err(error) => return Some(AccelError::Kvm(error)),
        };
        match HostSgx::offered(&host) {
            Err(HostSgxError::None) => host.check_trap().map_err(AccelError::NoTrap).err(),
            offered => offered.map_err(AccelError::Sgx).err(),
        }
    }

    /// The translators of software processors; none under KVM with SGX of the host or none.
    #[must_use]
    pub fn translators(&self) -> Translators {
        match self {
            Self::Soft(translators) => translators.clone(),
            Self::Kvm(_, stand_in) => {
                stand_in.as_ref().map(|made| made.translators().clone()).unwrap_or_default()
            }
        }
    }

    /// What of these capabilities enclaves have on processors of this kind, if they run in software: the state of a
    /// processor that the guest has.
    #[must_use]
    pub fn enclaves_of(&self, capabilities: &Capabilities) -> Capabilities {
        match self {
            Self::Soft(_) => *capabilities,
            Self::Kvm(host, _) => Capabilities {
                xfrm: capabilities.xfrm & host.cpu.xfeatures().bits(),
                ..*capabilities
            },
        }
    }

    /// The requests of ioctl(2) that the machine's threads make.
    #[must_use]
    pub fn ioctls(&self) -> Ioctls {
        match self {
            Self::Soft(_) => Ioctls::default(),
            Self::Kvm(..) => IOCTLS,
        }
    }
}

/// The host's KVM, if a guest does well on its processors, as far as these say.
fn suitable() -> Result<Host, PassedOver> {
    is_hardware()?;
    let host = Host::open().map_err(|error| PassedOver::Impossible(AccelError::Kvm(error)))?;
    has_clock(&host)?;
    Ok(host)
}

fn is_hardware() -> Result<(), PassedOver> {
    if Host::is_hardware() { Ok(()) } else { Err(PassedOver::NotHardware) }
}

fn has_clock(host: &Host) -> Result<(), PassedOver> {
    if host.has_clock() { Ok(()) } else { Err(PassedOver::NoClock) }
}
