//! What an entry takes before it has passed all checks, and gives back if it does not.

use core::sync::atomic::Ordering;

use crate::epc::EpcPage;
use crate::epcm::EpcmEntry;
use crate::layout::tcs;
use crate::operand::GP;
use crate::port::Stop;

/// STATE of a TCS, set to ACTIVE for the time of an entry. An entry that fails sets it back.
///
/// It is taken when the TCS is found valid, so that no other processor changes CSSA under the
/// checks that follow; that it was taken already counts only where the SDM looks at it.
pub(super) struct TcsClaim<'a> {
    page: EpcPage<'a>,
    held: bool,
}

impl<'a> TcsClaim<'a> {
    /// Sets STATE to ACTIVE, unless it is that already.
    pub(super) fn take(page: EpcPage<'a>) -> Self {
        let state = &page.words[tcs::STATE / 8];
        let held = state
            .compare_exchange(
                tcs::INACTIVE.to_le(),
                tcs::ACTIVE.to_le(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok();
        Self { page, held }
    }

    /// Whether the TCS was INACTIVE and is held by this entry.
    pub(super) const fn held(&self) -> bool {
        self.held
    }

    /// Leaves STATE as ACTIVE.
    pub(super) fn keep(mut self) {
        self.held = false;
    }
}

impl Drop for TcsClaim<'_> {
    fn drop(&mut self) {
        if self.held {
            self.page.words[tcs::STATE / 8].store(tcs::INACTIVE.to_le(), Ordering::Release);
        }
    }
}

/// A logical processor counted as inside an enclave that it has not entered yet. An entry that
/// fails counts it out again.
///
/// It is counted before the SSA frame is checked: a page that is blocked, changed or removed after
/// its check then waits for this processor, so that the frame that an entry latches stays in the
/// EPC. Counted after the checks, the frame could be gone in between.
pub(super) struct CountedIn<'a> {
    secs: &'a EpcmEntry,
    epoch: u32,
    held: bool,
}

impl<'a> CountedIn<'a> {
    /// #GP(0), "the SECS is in use", while a page of the enclave is being removed.
    pub(super) fn take(secs: &'a EpcmEntry) -> Result<Self, Stop> {
        let tracking = secs.update_tracking(|tracking| tracking.entered()).ok_or(GP)?;
        Ok(Self { secs, epoch: tracking.epoch(), held: true })
    }

    /// Leaves the processor counted, from the epoch that is returned on.
    pub(super) fn keep(mut self) -> u32 {
        self.held = false;
        self.epoch
    }
}

impl Drop for CountedIn<'_> {
    fn drop(&mut self) {
        if self.held {
            self.secs.update_tracking(|tracking| tracking.left(self.epoch));
        }
    }
}
