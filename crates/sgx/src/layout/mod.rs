//! The architectural data structures of SGX as they lie in memory (SDM Vol. 3D, 35.6 to 35.20).
//!
//! All are little-endian and unaligned in Rust's eyes; the leaves check the alignment that the
//! SDM asks for on the address.

mod attestation;
mod enclave;
mod launch;
mod page;

pub use attestation::{KeyPolicy, KeyRequest, Report, TargetInfo, key_name};
pub use enclave::{GprSgx, Secs, Tcs, TcsFlags, gprsgx, tcs};
pub use launch::{EinitToken, SigStruct};
pub use page::{PageInfo, Pcmd, RdInfo, RdInfoStatus, SecInfo, SecInfoFlags};
