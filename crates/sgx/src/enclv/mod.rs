//! ENCLV leaf functions (SDM Vol. 3D, 38.5), one file each, in the order of their numbers.

mod edecvirtchild;
mod eincvirtchild;
mod esetcontext;
mod virtual_child;

use crate::capabilities::SgxFeatures;
use crate::encls::{EnclsRegs, LeafOutcome};
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::{LeafPort, Stop};

/// Executes ENCLV leaf `regs.eax`, after the processor's own checks (see the crate
/// documentation).
///
/// # Errors
/// [`Stop`] if the leaf did not complete; nothing was committed.
pub fn execute(
    platform: &Platform,
    port: &mut impl LeafPort,
    regs: &EnclsRegs,
) -> Result<LeafOutcome, Stop> {
    if !port.capabilities().features.contains(SgxFeatures::OVERSUB_ENCLV) {
        return Err(GP);
    }
    match regs.eax {
        leaf::EDECVIRTCHILD => edecvirtchild::leaf(platform, port, regs),
        leaf::EINCVIRTCHILD => eincvirtchild::leaf(platform, port, regs),
        leaf::ESETCONTEXT => esetcontext::leaf(platform, port, regs),
        // SDM Vol. 2, ENCLV: an invalid leaf number.
        _ => Err(GP),
    }
}

/// ENCLV leaf numbers (SDM Vol. 3D, table 34-3).
pub mod leaf {
    /// EDECVIRTCHILD.
    pub const EDECVIRTCHILD: u32 = 0;
    /// EINCVIRTCHILD.
    pub const EINCVIRTCHILD: u32 = 1;
    /// ESETCONTEXT.
    pub const ESETCONTEXT: u32 = 2;
}
