//! Operands in the executing enclave, as EREPORT, EGETKEY and the SGX2 leaves check them.

use cloister_x86::La;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::epc::EpcPage;
use crate::epcm::{EpcmFlags, PageType};
use crate::layout::SecInfo;
use crate::operand::{EpcOperand, GP, Privilege, linear_aligned};
use crate::platform::Platform;
use crate::port::{EpcAccess, LeafPort, Stop};
use crate::state::ActiveEnclave;

/// The linear address of `len` bytes, aligned and within ELRANGE.
pub(super) fn in_elrange(
    enclave: &ActiveEnclave,
    port: &mut impl LeafPort,
    ea: u64,
    len: u64,
    align: u64,
) -> Result<La, Stop> {
    let la = linear_aligned(port, ea, len, align)?;
    if enclave.contains(la.0) { Ok(la) } else { Err(GP) }
}

/// The page of `operand`, if it is a regular page of the enclave at its own address that can be
/// used now and allows `needed`; #PF otherwise.
pub(super) fn page_of_enclave<'a>(
    platform: &'a Platform,
    enclave: &ActiveEnclave,
    operand: &EpcOperand,
    needed: EpcmFlags,
) -> Result<EpcPage<'a>, Stop> {
    let refused = EpcmFlags::BLOCKED | EpcmFlags::PENDING | EpcmFlags::MODIFIED;
    let view = platform.entry(operand.index).view();
    if view.is(PageType::Reg)
        && view.secs == enclave.secs
        && view.address == operand.la.page().0
        && view.flags.contains(needed)
        && !view.flags.intersects(refused)
    {
        Ok(platform.page(operand.index))
    } else {
        Err(operand.page_fault().into())
    }
}

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
) -> Result<(EpcPage<'a>, usize), Stop> {
    let la = in_elrange(enclave, port, ea, len, align)?;
    let operand = EpcOperand::resolve(port, la, access, Privilege::User)?;
    let needed = match access {
        EpcAccess::Read => EpcmFlags::R,
        EpcAccess::Write => EpcmFlags::W,
    };
    let page = page_of_enclave(platform, enclave, &operand, needed)?;
    Ok((page, la.page_offset() as usize))
}

/// A copy of the SECINFO at a translated operand.
pub(super) fn read_secinfo(
    platform: &Platform,
    enclave: &ActiveEnclave,
    operand: &EpcOperand,
) -> Result<SecInfo, Stop> {
    let page = page_of_enclave(platform, enclave, operand, EpcmFlags::R)?;
    let mut secinfo = SecInfo::new_zeroed();
    page.read(operand.la.page_offset() as usize, secinfo.as_mut_bytes());
    Ok(secinfo)
}

/// #GP(0) unless the reserved fields are zero.
pub(super) fn check_secinfo(secinfo: &SecInfo) -> Result<(), Stop> {
    if secinfo.reserved_is_zero() { Ok(()) } else { Err(GP) }
}

/// A copy of the SECINFO at effective address `ea`, with its reserved fields checked.
pub(super) fn enclave_secinfo(
    platform: &Platform,
    enclave: &ActiveEnclave,
    port: &mut impl LeafPort,
    ea: u64,
) -> Result<SecInfo, Stop> {
    let la = in_elrange(enclave, port, ea, 64, 64)?;
    let operand = EpcOperand::resolve(port, la, EpcAccess::Read, Privilege::User)?;
    let secinfo = read_secinfo(platform, enclave, &operand)?;
    check_secinfo(&secinfo)?;
    Ok(secinfo)
}
