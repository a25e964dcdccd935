//! A page that somebody who executes no leaf has for himself.

use crate::epc::EpcIndex;
use crate::epcm::Lock;
use crate::platform::Platform;

/// An EPC page that its holder has for himself ([`Platform::hold`]).
#[derive(Debug)]
pub struct HeldPage<'a> {
    _lock: Lock<'a>,
}

impl Platform {
    /// Exclusive access to a page, as a leaf has it from its checks to its end (SDM Vol. 3D,
    /// 38.1.6.1): until the value goes, every other leaf that reaches the page meets a conflict.
    /// `None` if a leaf or somebody else has the page now.
    ///
    /// It stands for a processor that is stopped in the middle of a leaf, so that what others meet
    /// meanwhile can be tested.
    ///
    /// # Panics
    /// If `page` does not name a page of this platform.
    #[must_use]
    pub fn hold(&self, page: EpcIndex) -> Option<HeldPage<'_>> {
        Some(HeldPage { _lock: self.entry(page).try_exclusive()? })
    }
}
