//! EPC for virtual machines: who has which page, what backs each page of a guest, and how all of
//! it comes back.
//!
//! It knows the host's EPC by an [`EpcStore`] alone, and of policy only what a section is.

mod account;
mod census;
mod guest;
mod pool;
mod store;
mod vepc;

pub use account::{AccountStatistics, EpcAccount, EpcLimits, LimitError};
pub use census::{EnclaveCensus, EpcCensus, LISTED_ENCLAVES, PageCounts, SectionCensus};
pub use guest::{EpcError, GuestEpc};
pub use pool::{EpcExhausted, EpcPool, NodeStatistics, PoolStatistics};
pub use store::{EpcStore, InUse, Removal};
pub use vepc::{Backing, RemoveError, VirtualEpc};
