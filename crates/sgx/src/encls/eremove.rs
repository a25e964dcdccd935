//! ENCLS\[EREMOVE\] (SDM Vol. 3D, 38.3, EREMOVE): makes an EPC page unused.

use cloister_x86::Exception;

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::epc::EpcIndex;
use crate::epcm::{EpcmFlags, PageType};
use crate::layout::Secs;
use crate::operand::{EpcOperand, Privilege, conflict, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// RCX: the EPC page.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    let la = linear_aligned(port, regs.rcx, 4096, 4096)?;
    let target = match EpcOperand::resolve(port, la, EpcAccess::Write, Privilege::Supervisor) {
        Ok(target) => target,
        // A page of a virtual EPC that was never backed cannot be VALID: nothing to do.
        Err(Stop::EpcMiss { .. }) => return Ok(LeafOutcome::status(SgxStatus::Success)),
        Err(stop) => return Err(stop),
    };
    let virtualized = port.epc_virtualization();
    // The only fault that is left is that of a conflict.
    let removed = platform.remove(target.index, virtualized).map_err(|_| conflict(port, la))?;
    Ok(LeafOutcome::status(removed))
}

impl Platform {
    /// EREMOVE on a page that the caller has translated, outside VMX non-root operation: what a
    /// hypervisor uses to take pages back from a guest. An SECS goes even with virtual children.
    ///
    /// Returns [`SgxStatus::Success`], [`SgxStatus::ChildPresent`] or [`SgxStatus::EnclaveAct`].
    ///
    /// # Errors
    /// #GP(0) if another leaf is using the page.
    pub fn eremove(&self, target: EpcIndex) -> Result<SgxStatus, Exception> {
        self.remove(target, false)
    }

    /// The same; `virtualized` as [`LeafPort::epc_virtualization`] has it.
    fn remove(&self, target: EpcIndex, virtualized: bool) -> Result<SgxStatus, Exception> {
        let entry = self.entry(target);
        let _lock = entry.try_exclusive().ok_or(Exception::gp(0))?;
        let view = entry.view();
        if !view.valid() {
            return Ok(SgxStatus::Success);
        }
        let owner = self.entry(view.secs);
        match view.page_type {
            PageType::Va => {
                entry.invalidate();
                Ok(SgxStatus::Success)
            }
            // A trimmed page whose trimming the enclave accepted. The pseudo-code names it both
            // among the pages for which there is nothing to do and among those that become
            // unused; only the latter lets the page be used again.
            PageType::Trim if !view.flags.contains(EpcmFlags::MODIFIED) => {
                entry.invalidate();
                owner.remove_child();
                Ok(SgxStatus::Success)
            }
            PageType::Secs => {
                if entry.children() != 0 {
                    return Ok(SgxStatus::ChildPresent);
                }
                if virtualized && self.page(target).load(Secs::VIRTCHILDCNT) != 0 {
                    return Ok(SgxStatus::ChildPresent);
                }
                entry.invalidate();
                Ok(SgxStatus::Success)
            }
            PageType::Reg
            | PageType::Tcs
            | PageType::Trim
            | PageType::SsFirst
            | PageType::SsRest => {
                // "Other threads active using SECS". Entry stays forbidden until the page is
                // gone, so that nobody slips in between the two.
                if owner.tracking().inside() != 0 {
                    return Ok(SgxStatus::EnclaveAct);
                }
                if owner.update_tracking(|tracking| tracking.removal_begun()).is_none() {
                    return if owner.tracking().inside() != 0 {
                        Ok(SgxStatus::EnclaveAct)
                    } else {
                        Err(Exception::gp(0))
                    };
                }
                entry.invalidate();
                owner.update_tracking(|tracking| tracking.removal_ended());
                // Last: without children the SECS may go, and its entry be another's.
                owner.remove_child();
                Ok(SgxStatus::Success)
            }
        }
    }
}
