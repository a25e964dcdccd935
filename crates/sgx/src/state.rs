//! The enclave side of one logical processor (the CREGs of SDM Vol. 3D, table 38-5).

use cloister_x86::{La, Segment};

use crate::attributes::{AttributeFlags, Attributes};
use crate::epc::EpcIndex;
use crate::platform::Platform;

/// Pages that the XSAVE area of an SSA frame can span.
pub(crate) const XSAVE_PAGES: usize = 1;

/// Enclave mode and what the processor latched at enclave entry. One per logical processor.
///
/// The pages that an AEX needs (SECS, TCS, SSA frame) are latched by EPC index at entry, and
/// tracking keeps them in the EPC while the processor is inside; so an AEX never faults.
#[derive(Debug, Default)]
pub struct EnclaveState {
    pub(crate) active: Option<ActiveEnclave>,
}

/// What is latched while in enclave mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveEnclave {
    /// CR_ACTIVE_SECS.
    pub(crate) secs: EpcIndex,
    /// CR_TCS_PA.
    pub(crate) tcs: EpcIndex,
    /// CR_TCS_LA.
    pub(crate) tcs_la: u64,
    /// CR_ELRANGE: base.
    pub(crate) base: u64,
    /// CR_ELRANGE: size.
    pub(crate) size: u64,
    /// SECS.ATTRIBUTES.
    pub(crate) attributes: Attributes,
    /// SECS.MISCSELECT.
    pub(crate) miscselect: u32,
    /// SECS.SSAFRAMESIZE.
    pub(crate) ssaframesize: u32,
    /// CR_XSAVE_PAGE_n.
    pub(crate) xsave_pages: [EpcIndex; XSAVE_PAGES],
    /// CR_GPR_PA: the last page of the SSA frame, which ends in the GPRSGX region.
    pub(crate) gpr_page: EpcIndex,
    /// CR_SAVE_FS.
    pub(crate) saved_fs: Segment,
    /// CR_SAVE_GS.
    pub(crate) saved_gs: Segment,
    /// CR_SAVE_XCR0, if CR4.OSXSAVE was set at entry.
    pub(crate) saved_xcr0: Option<u64>,
    /// CR_SAVE_TF.
    pub(crate) saved_tf: bool,
    /// CR_DBGOPTIN.
    pub(crate) dbgoptin: bool,
    /// Tracking epoch of the SECS in which this processor entered.
    pub(crate) epoch: u32,
}

impl EnclaveState {
    /// A processor outside any enclave, as after reset.
    #[must_use]
    pub const fn new() -> Self {
        Self { active: None }
    }

    /// Puts the processor outside any enclave without saving anything: a reset, or the end of a
    /// virtual machine in the middle of an enclave. The thread's TCS stays ACTIVE and can only be
    /// removed, which EREMOVE allows once nobody is inside.
    pub fn reset(&mut self, platform: &Platform) {
        if let Some(enclave) = self.active.take() {
            enclave.count_out(platform);
        }
    }

    /// CR_ENCLAVE_MODE.
    #[must_use]
    #[inline]
    pub const fn in_enclave(&self) -> bool {
        self.active.is_some()
    }

    /// Whether `la` lies in the ELRANGE of the enclave that is executing. False outside enclave
    /// mode.
    #[must_use]
    #[inline]
    pub fn in_elrange(&self, la: La) -> bool {
        self.active.as_ref().is_some_and(|enclave| enclave.contains(la.0))
    }

    /// ELRANGE of the enclave that is executing: base and size in bytes.
    #[must_use]
    pub fn elrange(&self) -> Option<(La, u64)> {
        self.active.as_ref().map(|enclave| (La(enclave.base), enclave.size))
    }

    /// XFRM of the enclave that is executing: the state components that an AEX saves.
    #[must_use]
    pub fn xfrm(&self) -> Option<u64> {
        self.active.as_ref().map(|enclave| enclave.attributes.xfrm.get())
    }

    /// Whether the enclave was entered opted out of debugging, so that breakpoints are
    /// suppressed, POPF cannot set TF, and INT1 and INT3 are #UD (SDM Vol. 3D, chapter 40).
    /// False outside enclave mode.
    #[must_use]
    pub fn debug_opt_out(&self) -> bool {
        self.active.as_ref().is_some_and(|enclave| !enclave.dbgoptin)
    }

    /// Whether the enclave's contents are nobody's to see: its DEBUG attribute is clear. False outside
    /// enclave mode.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.active.as_ref().is_some_and(|enclave| !enclave.attributes.has(AttributeFlags::DEBUG))
    }

    /// The pages of the SSA frame that an AEX writes to.
    #[must_use]
    pub fn frame_pages(&self) -> Option<[EpcIndex; XSAVE_PAGES + 1]> {
        let enclave = self.active.as_ref()?;
        let mut pages = [enclave.gpr_page; XSAVE_PAGES + 1];
        pages[..XSAVE_PAGES].copy_from_slice(&enclave.xsave_pages);
        Some(pages)
    }

    /// The SECS and TCS of the enclave that is executing.
    #[must_use]
    pub fn active_pages(&self) -> Option<(EpcIndex, EpcIndex)> {
        self.active.as_ref().map(|enclave| (enclave.secs, enclave.tcs))
    }
}

impl ActiveEnclave {
    /// This processor no longer counts as inside. From here on the latched pages may be evicted.
    pub(crate) fn count_out(&self, platform: &Platform) {
        platform.entry(self.secs).update_tracking(|tracking| tracking.left(self.epoch));
    }

    /// Whether linear address `la` lies in ELRANGE.
    #[inline]
    pub(crate) const fn contains(&self, la: u64) -> bool {
        la.wrapping_sub(self.base) < self.size
    }
}
