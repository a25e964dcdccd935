//! All EPC of one guest.

use std::sync::Arc;

use cloister_sgx::{EpcIndex, Platform};
use cloister_x86::{Gpa, PAGE_SIZE};
use thiserror::Error;

use super::account::EpcAccount;
use super::pool::EpcExhausted;
use super::store::EpcStore;
use super::vepc::{Backing, RemoveError, VirtualEpc};
use crate::policy::{SectionConfig, SectionError, check_sections};

/// Why a guest cannot have its sections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum EpcError {
    /// They cannot be sections of a guest.
    #[error(transparent)]
    Sections(#[from] SectionError),
    /// The host's EPC does not suffice to preallocate a section.
    #[error("the host's EPC does not suffice to preallocate section {0}")]
    Exhausted(usize),
    /// The machine's quota does not suffice to preallocate a section.
    #[error("the machine's quota of EPC does not suffice to preallocate section {0}")]
    Quota(usize),
}

/// The sections of virtual EPC of a guest, which draw on one account.
#[derive(Debug)]
pub struct GuestEpc<S: EpcStore = Platform> {
    account: Arc<EpcAccount<S>>,
    sections: Vec<VirtualEpc<S>>,
}

impl<S: EpcStore> GuestEpc<S> {
    /// Sections at these addresses. Those that are preallocated have their pages when this returns.
    ///
    /// # Errors
    ///
    /// [`EpcError`].
    pub fn new(account: Arc<EpcAccount<S>>, sections: &[SectionConfig]) -> Result<Self, EpcError> {
        check_sections(sections)?;
        let mut made = Vec::with_capacity(sections.len());
        for (n, &SectionConfig { base, size, node, preallocate }) in sections.iter().enumerate() {
            let pages = usize::try_from(size / PAGE_SIZE).map_err(|_| SectionError::Size(n))?;
            let section = VirtualEpc::new(account.clone(), base, pages, node);
            if preallocate {
                section.preallocate().map_err(|reason| match reason {
                    EpcExhausted::Host => EpcError::Exhausted(n),
                    EpcExhausted::Quota => EpcError::Quota(n),
                })?;
            }
            made.push(section);
        }
        Ok(Self { account, sections: made })
    }

    /// What the guest may take of the host's EPC, and has.
    #[must_use]
    pub const fn account(&self) -> &Arc<EpcAccount<S>> {
        &self.account
    }

    /// The sections in order.
    #[must_use]
    pub fn sections(&self) -> &[VirtualEpc<S>] {
        &self.sections
    }

    /// What backs a guest-physical address; `None` if it is in no section.
    #[must_use]
    pub fn backing(&self, gpa: Gpa) -> Option<Backing> {
        self.sections.iter().find_map(|section| section.backing(gpa))
    }

    /// Gives a page of virtual EPC its backing; `None` if `gpa` is in no section.
    ///
    /// # Errors
    ///
    /// [`EpcExhausted`].
    pub fn populate(&self, gpa: Gpa) -> Option<Result<EpcIndex, EpcExhausted>> {
        self.sections.iter().find_map(|section| section.populate(gpa))
    }

    /// Makes every page of every section unused, for a reset of the guest: a pass for children,
    /// then one for the SECS pages. No processor of the guest may be running.
    ///
    /// # Errors
    ///
    /// [`RemoveError`] if a page is in use.
    pub fn reset(&self) -> Result<(), RemoveError> {
        let pass = || {
            let removed = self.sections.iter().map(VirtualEpc::remove_all);
            removed.sum::<Result<usize, RemoveError>>()
        };
        // All children of the guest's SECS pages are in its own sections.
        if pass()? != 0 {
            let left = pass()?;
            debug_assert_eq!(left, 0, "an SECS has children in no section of its machine");
        }
        Ok(())
    }
}
