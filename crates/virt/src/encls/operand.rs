//! Operands of intercepted leaves: aligned, translated, and copied once.

use cloister_sgx::EpcIndex;
use cloister_x86::{Exception, Gva, La, PageFaultCode};
use zerocopy::{FromBytes, IntoBytes};

use super::Refusal;
use crate::guest::{GuestCpu, GuestFault};
use crate::vm::SgxVm;

/// Linear address of an operand that must be aligned to `align`, else #GP(0).
pub(super) fn aligned(
    guest: &mut impl GuestCpu,
    ea: u64,
    len: u64,
    align: u64,
) -> Result<Gva, GuestFault> {
    let gva = guest.linear(ea, len)?;
    if gva.is_aligned(align) { Ok(gva) } else { Err(GuestFault::Exception(Exception::gp(0))) }
}

/// Copies a structure from guest memory, once: what is checked is what is used.
pub(super) fn copy<T: FromBytes + IntoBytes>(
    guest: &mut impl GuestCpu,
    gva: Gva,
) -> Result<T, GuestFault> {
    let mut value = T::new_zeroed();
    guest.read(gva, value.as_mut_bytes())?;
    Ok(value)
}

/// The EPC page that an operand names, backed now if it was not. #PF with the SGX bit if it is no EPC.
pub(super) fn epc_page(
    vm: &SgxVm,
    guest: &mut impl GuestCpu,
    gva: Gva,
) -> Result<(La, EpcIndex), Refusal> {
    let gpa = guest.translate(gva, true)?;
    match vm.populate(gpa) {
        Some(Ok(index)) => Ok((La(gva.0), index)),
        Some(Err(reason)) => Err(Refusal::Exhausted(gpa.page(), reason)),
        None => {
            let code = PageFaultCode::PRESENT | PageFaultCode::WRITE | PageFaultCode::SGX;
            Err(Refusal::Leaf(Exception::pf(gva.0, code)))
        }
    }
}
