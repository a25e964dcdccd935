//! What a guest may do with SGX: what its CPUID says, what its MSRs hold, which of its ENCLS leaves
//! exit, where its EPC sections are, and who may give it the provisioning key.
//!
//! Plain data and functions of it: nothing here knows a platform, a processor or a file.

mod cpuid;
mod encls;
mod msr;
mod provision;
mod sections;

pub use cpuid::{CpuidError, SgxCpuid};
pub use encls::{encls_exiting, enclv_exiting, exit_fault};
pub use msr::{RdmsrOutcome, SgxMsrs, WrmsrOutcome};
pub use provision::ProvisioningRight;
pub use sections::{MAX_SECTIONS, SectionConfig, SectionError, check_sections};
