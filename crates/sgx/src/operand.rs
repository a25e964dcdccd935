//! Operands of the leaves: alignment, translation, and the faults of both.

use cloister_x86::{Exception, La, PageFaultCode};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::encls::LeafOutcome;
use crate::epc::EpcIndex;
use crate::port::{Conflict, EpcAccess, LeafPort, Stop};
use crate::status::SgxStatus;

/// #GP(0).
pub(crate) const GP: Stop = Stop::Fault(Exception::gp(0));

/// What it means that another leaf is at work on the EPC page at `la`, where the pseudo-code either
/// faults or causes the VM exit SGX_CONFLICT.
pub(crate) fn conflict(port: &impl LeafPort, la: La) -> Stop {
    if port.epc_virtualization() { Stop::Conflict(Conflict::PageException { la }) } else { GP }
}

/// The same where the pseudo-code either reports SGX_EPC_PAGE_CONFLICT or causes that exit.
pub(crate) fn reported_conflict(port: &impl LeafPort, la: La) -> Result<LeafOutcome, Stop> {
    if port.epc_virtualization() {
        return Err(Stop::Conflict(Conflict::PageError { la }));
    }
    Ok(LeafOutcome::status(SgxStatus::EpcPageConflict))
}

/// Privilege of the instruction whose operands these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Privilege {
    /// ENCLS and ENCLV: CPL 0.
    Supervisor,
    /// ENCLU: CPL 3.
    User,
}

/// An EPC operand: its linear address and the page that it translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EpcOperand {
    pub(crate) la: La,
    pub(crate) index: EpcIndex,
    access: EpcAccess,
    privilege: Privilege,
}

impl EpcOperand {
    /// Translates `la`; #PF(la) if it "does not resolve within an EPC".
    pub(crate) fn resolve(
        port: &mut impl LeafPort,
        la: La,
        access: EpcAccess,
        privilege: Privilege,
    ) -> Result<Self, Stop> {
        match port.resolve_epc(la, access)? {
            Some(index) => Ok(Self { la, index, access, privilege }),
            None => Err(Stop::Fault(page_fault(la, access, privilege))),
        }
    }

    /// #PF at the operand, as its EPCM entry causes it.
    pub(crate) fn page_fault(&self) -> Exception {
        page_fault(self.la, self.access, self.privilege)
    }
}

/// The page fault that SGX itself raises at `la`: the page tables allowed the access.
fn page_fault(la: La, access: EpcAccess, privilege: Privilege) -> Exception {
    let mut code = PageFaultCode::PRESENT | PageFaultCode::SGX;
    if access == EpcAccess::Write {
        code |= PageFaultCode::WRITE;
    }
    if privilege == Privilege::User {
        code |= PageFaultCode::USER;
    }
    Exception::pf(la.0, code)
}

/// The linear address of `len` bytes at effective address `ea`; #GP(0) unless it is a multiple of
/// `align`.
pub(crate) fn linear_aligned(
    port: &mut impl LeafPort,
    ea: u64,
    len: u64,
    align: u64,
) -> Result<La, Stop> {
    let la = port.linear(ea, len)?;
    if la.is_aligned(align) { Ok(la) } else { Err(GP) }
}

/// Copies a structure from ordinary memory, once.
pub(crate) fn read_struct<T: FromBytes + FromZeros + IntoBytes>(
    port: &mut impl LeafPort,
    la: La,
) -> Result<T, Stop> {
    let mut value = T::new_zeroed();
    port.read(la, value.as_mut_bytes())?;
    Ok(value)
}
