//! ENCLU\[EDECCSSA\] (SDM Vol. 3D, 38.4, EDECCSSA): pops the SSA stack from inside.

use crate::enclu::EncluOutcome;
use crate::enclu::entry::{FrameGeometry, latch_frame, read_tcs, set_cssa};
use crate::operand::GP;
use crate::platform::Platform;
use crate::port::{LeafPort, Stop};
use crate::state::EnclaveState;

/// No operands: the thread's own TCS.
pub(super) fn leaf(
    platform: &Platform,
    state: &mut EnclaveState,
    port: &mut impl LeafPort,
) -> Result<EncluOutcome, Stop> {
    let enclave = state.active.as_mut().ok_or(GP)?;
    let tcs_page = platform.page(enclave.tcs);
    let _lock = platform.entry(enclave.tcs).try_shared().ok_or(GP)?;
    let tcs = read_tcs(tcs_page);
    let Some(top) = tcs.cssa.get().checked_sub(1) else { return Err(GP) };
    let geometry = FrameGeometry {
        secs: enclave.secs,
        ssa_base: tcs.ossa.get().wrapping_add(enclave.base),
        ssaframesize: enclave.ssaframesize,
        xfrm: enclave.attributes.xfrm.get(),
    };
    let frame = latch_frame(platform, port, &geometry, top)?;
    set_cssa(tcs_page, top);
    enclave.gpr_page = frame.gpr_page;
    enclave.xsave_pages = frame.xsave_pages;
    Ok(EncluOutcome::default())
}
