//! ENCLU leaf functions (SDM Vol. 3D, 38.4), one file each, in the order of their numbers.

use cloister_x86::Gpr;

use crate::capabilities::SgxFeatures;
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::{LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;
use crate::status::SgxStatus;
use crate::xsave::XsaveArea;

mod claim;
mod eaccept;
mod eacceptcopy;
mod edeccssa;
mod eenter;
mod eexit;
pub(crate) mod egetkey;
mod emodpe;
mod entry;
mod ereport;
mod eresume;
mod operand;

pub(crate) use ereport::report_key;

/// ENCLU leaf numbers (SDM Vol. 3D, table 34-2).
pub mod leaf {
    /// EREPORT.
    pub const EREPORT: u32 = 0;
    /// EGETKEY.
    pub const EGETKEY: u32 = 1;
    /// EENTER.
    pub const EENTER: u32 = 2;
    /// ERESUME.
    pub const ERESUME: u32 = 3;
    /// EEXIT.
    pub const EEXIT: u32 = 4;
    /// EACCEPT.
    pub const EACCEPT: u32 = 5;
    /// EMODPE.
    pub const EMODPE: u32 = 6;
    /// EACCEPTCOPY.
    pub const EACCEPTCOPY: u32 = 7;
    /// EDECCSSA.
    pub const EDECCSSA: u32 = 9;
}

/// Whether a single-step #DB follows an ENCLU leaf that completed (SDM Vol. 3D, 40.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stepping {
    /// As after any instruction: if TF was set when it began.
    #[default]
    Usual,
    /// One is pending, whatever TF was when the leaf began.
    Pending,
    /// None, and debug exceptions that were pending are dropped.
    Suppressed,
}

/// What the processor must do after an ENCLU leaf completed. The new registers, RIP included,
/// are in the [`ProcessorState`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EncluOutcome {
    /// Flush_linear_context: the processor entered or left enclave mode, so every TLB entry and
    /// cached translation goes, and fetching restarts at the new RIP.
    pub flush: bool,
    /// ERESUME: load the state components `xfrm` of the [`XsaveArea`] with XRSTOR. The image was
    /// checked; the load cannot fault.
    pub xrstor: Option<u64>,
    /// Single stepping.
    pub stepping: Stepping,
}

/// Executes ENCLU leaf EAX, after the processor's own checks (see the crate documentation).
///
/// `xsave` is scratch space of the logical processor in which ERESUME leaves an image.
///
/// # Errors
/// [`Stop`] if the leaf did not complete; nothing was committed.
pub fn execute(
    platform: &Platform,
    state: &mut EnclaveState,
    port: &mut impl LeafPort,
    cpu: &mut ProcessorState,
    xsave: &mut XsaveArea,
) -> Result<EncluOutcome, Stop> {
    let number = cpu.gpr[Gpr::Rax] as u32;
    // SDM Vol. 2, ENCLU: entry is for processors outside an enclave, all else for those inside.
    let entry = matches!(number, leaf::EENTER | leaf::ERESUME);
    if entry == state.in_enclave() {
        return Err(GP);
    }
    let features = port.capabilities().features;
    let sgx2 = features.contains(SgxFeatures::SGX2);
    match number {
        leaf::EREPORT => ereport::leaf(platform, state, port, cpu),
        leaf::EGETKEY => egetkey::leaf(platform, state, port, cpu),
        leaf::EENTER => eenter::leaf(platform, state, port, cpu),
        leaf::ERESUME => eresume::leaf(platform, state, port, cpu, xsave),
        leaf::EEXIT => eexit::leaf(platform, state, cpu),
        leaf::EACCEPT if sgx2 => eaccept::leaf(platform, state, port, cpu),
        leaf::EMODPE if sgx2 => emodpe::leaf(platform, state, port, cpu),
        leaf::EACCEPTCOPY if sgx2 => eacceptcopy::leaf(platform, state, port, cpu),
        leaf::EDECCSSA if features.contains(SgxFeatures::EDECCSSA) => {
            edeccssa::leaf(platform, state, port)
        }
        // SDM Vol. 2, ENCLU: an invalid leaf number, or one that CPUID 12H does not announce.
        _ => Err(GP),
    }
}

/// RAX and the flags of a leaf that reports `status`.
fn report_status(cpu: &mut ProcessorState, status: SgxStatus) {
    cpu.gpr[Gpr::Rax] = status.rax();
    cpu.rflags = status.flags(cpu.rflags);
}
