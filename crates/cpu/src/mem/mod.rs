//! Memory: host access, TLBs, the page walk, and the accesses that instructions make.

pub mod access;
pub mod epc;
pub mod host;
pub mod int;
pub mod tlb;
pub mod translate;
pub mod walk;

pub use int::{Int, Plain};
