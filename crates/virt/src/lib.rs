//! SGX virtualization: what a hypervisor adds to [`cloister_sgx`] so that virtual machines can
//! use it.
//!
//! * [`EpcPool`] and [`EpcAccount`]: the host's EPC, shared by all virtual machines, and what each of
//!   them may take.
//! * [`VirtualEpc`]: an EPC section of a guest, raw pages that the guest itself manages, backed by
//!   the pool when they are first used (the idea of Linux's `/dev/sgx_vepc`).
//! * [`SgxVm`] and [`SgxVcpu`]: what the guest may do, and the MSRs that are its own.
//! * [`ProvisioningRight`]: who may give a guest the provisioning key.
//! * [`EpcCensus`]: what is in the sections of a machine that runs, for the operator.
//! * [`encls`]: ENCLS leaves that exited because policy has a say in them: ECREATE and EINIT.
//!
//! It knows no CPU implementation and no VMM: guests are reached through the
//! [`LeafPort`](cloister_sgx::LeafPort) of their processors, with [`PolicyPort`] in front of it.

#![forbid(unsafe_code)]
#![warn(
    missing_debug_implementations,
    clippy::allow_attributes,
    clippy::semicolon_if_nothing_returned,
    clippy::tests_outside_test_module
)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

mod account;
mod census;
mod cpuid;
pub mod encls;
mod msr;
mod policy;
mod pool;
mod provision;
mod vepc;
mod vm;

pub use account::{AccountStatistics, EpcAccount, EpcLimits, LimitError};
pub use census::{EnclaveCensus, EpcCensus, LISTED_ENCLAVES, PageCounts, SectionCensus};
pub use cpuid::SgxCpuid;
pub use msr::{RdmsrOutcome, SgxVcpu, WrmsrOutcome};
pub use policy::PolicyPort;
pub use pool::{EpcExhausted, EpcPool, NodeStatistics, PoolStatistics};
pub use provision::{Owner, ProvisionError, ProvisioningRight};
pub use vepc::{Backing, RemoveError, VirtualEpc};
pub use vm::{MAX_SECTIONS, SectionConfig, SgxVm, VmError};
