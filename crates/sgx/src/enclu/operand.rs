//! Operands in the executing enclave, as EREPORT, EGETKEY and EACCEPT check them.

use crate::epc::EpcPage;
use crate::epcm::{EpcmFlags, PageType};
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::state::ActiveEnclave;

/// A structure of `len` bytes, aligned to at least its size, in a regular page of the enclave
/// that allows `access`: its page and its offset there.
pub(super) fn enclave_operand<'a>(
    platform: &'a Platform,
    enclave: &ActiveEnclave,
    port: &mut impl LeafPort,
    ea: u64,
    len: u64,
    align: u64,
    access: EpcAccess,
) -> Result<(&'a EpcPage, usize), Stop> {
    let la = linear_aligned(port, ea, len, align)?;
    if !enclave.contains(la.0) {
        return Err(GP);
    }
    let operand = EpcOperand::resolve(port, la, access, Privilege::User)?;
    let needed = match access {
        EpcAccess::Read => EpcmFlags::R,
        EpcAccess::Write => EpcmFlags::W,
    };
    let refused = EpcmFlags::BLOCKED | EpcmFlags::PENDING | EpcmFlags::MODIFIED;
    let view = platform.entry(operand.index).view();
    if view.is(PageType::Reg)
        && view.secs == enclave.secs
        && view.address == la.page().0
        && view.flags.contains(needed)
        && !view.flags.intersects(refused)
    {
        Ok((platform.page(operand.index), la.page_offset() as usize))
    } else {
        Err(operand.page_fault().into())
    }
}
