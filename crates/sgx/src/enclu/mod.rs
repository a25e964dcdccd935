//! ENCLU leaf functions (SDM Vol. 3D, 38.4), one file each, in the order of their numbers.

use cloister_x86::Exception;

use crate::platform::Platform;
use crate::port::{LeafPort, Stop};
use crate::processor::ProcessorState;
use crate::state::EnclaveState;
use crate::xsave::XsaveArea;

/// What the processor must do after an ENCLU leaf completed. The new registers, RIP included,
/// are in the [`ProcessorState`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EncluOutcome {
    /// Flush_linear_context: the processor entered or left enclave mode, so every TLB entry and
    /// cached translation goes, and fetching restarts at the new RIP.
    pub flush: bool,
    /// ERESUME: load the state components `xfrm` of the [`XsaveArea`] with XRSTOR. The image was
    /// checked; the load cannot fault.
    pub xrstor: Option<u64>,
    /// A single-step #DB is pending at the end of the instruction.
    pub single_step: bool,
    /// Pending debug exceptions that were collected before are dropped.
    pub drop_pending_debug: bool,
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
    let _ = (platform, state, port, cpu, xsave);
    Err(Stop::Fault(Exception::gp(0)))
}
