//! The architectural model of Intel SGX: EPC, EPCM, keys, leaf functions, asynchronous exits and
//! the access check. It knows no CPU implementation, no hypervisor and no virtual machine.

#![forbid(unsafe_code)]

mod access;
mod aex;
mod attributes;
mod capabilities;
pub mod encls;
pub mod enclu;
mod epc;
mod epcm;
mod identity;
mod keys;
pub mod layout;
mod measurement;
mod operand;
mod platform;
mod port;
pub mod processor;
mod signature;
mod state;
mod status;
pub mod xsave;

pub use access::{Access, AccessOutcome, check_access};
pub use aex::{ExitingEvent, SyntheticState, aex};
pub use attributes::{AttributeFlags, Attributes, MISCSELECT_EXINFO};
pub use capabilities::{Capabilities, SgxFeatures};
pub use encls::{EnclsRegs, LeafOutcome};
pub use enclu::{EncluOutcome, Stepping};
pub use epc::{EPC_PAGE_SIZE, EpcIndex, EpcPage};
pub use epcm::{EpcmFlags, EpcmView, PageType};
pub use identity::PlatformIdentity;
pub use platform::{
    DEFAULT_LE_HASH, EpcSection, EpcSectionConfig, Platform, PlatformConfig, PlatformError,
};
pub use port::{EpcAccess, LeafPort, Stop};
pub use processor::{ProcessorState, Segment};
pub use state::EnclaveState;
pub use status::SgxStatus;
pub use xsave::XsaveArea;
