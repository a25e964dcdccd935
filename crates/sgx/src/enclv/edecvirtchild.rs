//! ENCLV\[EDECVIRTCHILD\] (SDM Vol. 3D, 38.5, EDECVIRTCHILD): one virtual child page fewer.

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
    count(platform, port, regs, |children| children.checked_sub(1))
}
