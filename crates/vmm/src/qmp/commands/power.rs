//! Commands that stop, reset and end the machine.

use serde_json::json;

use super::{Outcome, done, give};
use crate::machine::{RunState, ShutdownCause};
use crate::qmp::context::Context;
use crate::qmp::request::{Arguments, QmpError};

/// `query-status`.
pub(super) fn query_status(context: &Context, _: &Arguments) -> Outcome {
    let status = context.control.state();
    give(json!({ "status": status, "running": status == RunState::Running }))
}

/// `stop`.
pub(super) fn stop(context: &Context, _: &Arguments) -> Outcome {
    context.control.stop();
    done()
}

/// `cont`.
pub(super) fn cont(context: &Context, _: &Arguments) -> Outcome {
    context.control.resume().map_err(|ended| QmpError::generic(ended.to_string()))?;
    done()
}

/// `system_reset`.
pub(super) fn system_reset(context: &Context, _: &Arguments) -> Outcome {
    context.control.reset();
    done()
}

/// `system_powerdown`.
pub(super) fn system_powerdown(context: &Context, _: &Arguments) -> Outcome {
    context.control.powerdown();
    done()
}

/// `quit`.
pub(super) fn quit(context: &Context, _: &Arguments) -> Outcome {
    context.control.quit_because(ShutdownCause::HostQmpQuit);
    done()
}
