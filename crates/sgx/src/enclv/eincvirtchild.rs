//! ENCLV\[EINCVIRTCHILD\] (SDM Vol. 3D, 38.5, EINCVIRTCHILD): one virtual child page more.

use crate::encls::{EnclsRegs, LeafOutcome};
use crate::enclv::virtual_child::count;
use crate::platform::Platform;
use crate::port::{LeafPort, Stop};

/// RBX: a page of the enclave, or its SECS; RCX: the SECS.
pub(super) fn leaf(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    // The pseudo-code does not look for an overflow.
    count(platform, port, regs, |children| Some(children.wrapping_add(1)))
}
