//! The access check (SDM Vol. 3D, 35.3 to 35.5), made on each TLB fill and nowhere else.

use cloister_x86::{Exception, La, PageFaultCode};

use crate::epc::EpcIndex;
use crate::epcm::{EpcmFlags, PageType};
use crate::platform::Platform;
use crate::state::EnclaveState;

/// Kind of a memory access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// What the access check says of an access that the page tables allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessOutcome {
    /// The access goes to the page that the page tables name.
    Allowed,
    /// The access goes to the abort page: reads give all ones, writes are dropped. A TLB entry
    /// must say so, and must not hold the page's address.
    AbortPage,
    /// The access faults with this exception.
    Fault(Exception),
}

/// Checks a direct access of a logical processor to linear address `la`, whose translation the
/// page tables allow: `page` is the EPC page that it leads to, `None` if it leads elsewhere.
///
/// The outcome holds for the whole 4 KiB page of `la` and for this kind of access, until the
/// processor enters or leaves an enclave or flushes its TLB.
#[must_use]
pub fn check_access(
    platform: &Platform,
    state: &EnclaveState,
    la: La,
    page: Option<EpcIndex>,
    access: Access,
) -> AccessOutcome {
    let Some(enclave) = state.active.as_ref() else {
        // SDM Vol. 3D, 35.5.1: a non-enclave access to the EPC.
        return match page {
            None => AccessOutcome::Allowed,
            Some(_) => AccessOutcome::AbortPage,
        };
    };
    if !enclave.contains(la.0) {
        return match (access, page) {
            // SDM Vol. 3D, 35.3: a fetch from inside an enclave to an address outside it.
            (Access::Execute, _) => AccessOutcome::Fault(Exception::gp(0)),
            (_, None) => AccessOutcome::Allowed,
            // SDM Vol. 3D, 35.2: an access outside ELRANGE is not an enclave access.
            (_, Some(_)) => AccessOutcome::AbortPage,
        };
    }
    let needed = match access {
        Access::Read => EpcmFlags::R,
        Access::Write => EpcmFlags::W,
        Access::Execute => EpcmFlags::X,
    };
    let blocking = EpcmFlags::BLOCKED | EpcmFlags::PENDING | EpcmFlags::MODIFIED;
    // SDM Vol. 3D, 35.3: the list of what a direct enclave access must conform to.
    let conforms = page.is_some_and(|index| {
        let view = platform.entry(index).view();
        view.is(PageType::Reg)
            && view.secs == enclave.secs
            && view.address == la.page().0
            && view.flags.contains(needed)
            && !view.flags.intersects(blocking)
    });
    if conforms {
        return AccessOutcome::Allowed;
    }
    // SDM Vol. 3A, 4.7: the page tables allowed the access, so P is set; enclaves run at CPL 3.
    let mut code = PageFaultCode::PRESENT | PageFaultCode::USER | PageFaultCode::SGX;
    match access {
        Access::Read => {}
        Access::Write => code |= PageFaultCode::WRITE,
        Access::Execute => code |= PageFaultCode::FETCH,
    }
    AccessOutcome::Fault(Exception::pf(la.0, code))
}
