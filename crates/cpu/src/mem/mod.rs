//! Memory: host access, TLBs, the page walk, and the accesses that instructions make.

pub(crate) mod access;
mod bytes;
pub(crate) mod enclave_code;
pub(crate) mod epc;
pub(crate) mod ept;
pub(crate) mod host;
pub(crate) mod int;
mod peek;
pub(crate) mod physical;
mod table_cache;
pub(crate) mod tlb;
pub(crate) mod translate;
pub(crate) mod walk;
pub(crate) mod world;

pub(crate) use bytes::PageBytes;
pub(crate) use int::{Int, Plain};
