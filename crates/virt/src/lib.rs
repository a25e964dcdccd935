//! SGX virtualization: what a hypervisor adds to [`cloister_sgx`] so that virtual machines can
//! use it.
//!
//! There are two floors, of which each can be used without the other:
//!
//! * [`policy`]: what a guest may do. [`SgxCpuid`] is what its CPUID says, [`SgxMsrs`] are the MSRs of a
//!   virtual processor, [`policy::encls_exiting`] says which ENCLS leaves exit, and
//!   [`ProvisioningRight`] who may give a guest the provisioning key. Plain data.
//! * [`epc`]: where a guest's EPC comes from. [`EpcPool`] is the host's EPC, shared by all virtual
//!   machines, and [`EpcAccount`] what each of them may take; [`GuestEpc`] are the sections of a guest,
//!   raw pages that the guest itself manages and that are backed when they are first used (the idea of
//!   Linux's `/dev/sgx_vepc`); [`EpcCensus`] is what is in them, for the operator. All of it is over an
//!   [`EpcStore`].
//!
//! [`SgxVm`] and [`SgxVcpu`] join them on the software platform of [`cloister_sgx`], where ENCLS leaves
//! that exited ([`encls`]) are carried out. A guest is reached through the
//! [`LeafPort`](cloister_sgx::LeafPort) of its processor, with [`PolicyPort`] in front of it; no CPU
//! implementation and no VMM is known here.

#![forbid(unsafe_code)]
#![warn(
    missing_debug_implementations,
    clippy::allow_attributes,
    clippy::semicolon_if_nothing_returned,
    clippy::tests_outside_test_module
)]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

pub mod encls;
pub mod epc;
pub mod policy;
mod port;
mod vcpu;
mod vm;

pub use epc::{
    AccountStatistics, Backing, EnclaveCensus, EpcAccount, EpcCensus, EpcError, EpcExhausted,
    EpcLimits, EpcPool, EpcStore, GuestEpc, LISTED_ENCLAVES, LimitError, NodeStatistics,
    PageCounts, PoolStatistics, RemoveError, SectionCensus, VirtualEpc,
};
pub use policy::{
    CpuidError, MAX_SECTIONS, ProvisioningRight, RdmsrOutcome, SectionConfig, SectionError,
    SgxCpuid, SgxMsrs, WrmsrOutcome,
};
pub use port::PolicyPort;
pub use vcpu::SgxVcpu;
pub use vm::{SgxVm, VmError};
