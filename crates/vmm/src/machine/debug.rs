//! The machine's side of a debugger: where processors are to stop, and which of them have.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::control::{AskError, Control};
use crate::accel::{DebugPoints, DebugStop, Vcpu};

/// What the processors of all boots share with the debugger.
#[derive(Default)]
pub(super) struct Debugging {
    state: Mutex<State>,
    /// Called when a processor has stopped.
    on_stop: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default, Debug)]
struct State {
    /// Where processors are to stop, while there is a debugger.
    points: Option<DebugPoints>,
    /// Which have, in their order.
    stops: VecDeque<(u32, DebugStop)>,
}

impl fmt::Debug for Debugging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debugging").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Debugging {
    /// Has the processor of a new boot stop where those before it did.
    pub(super) fn prepare(&self, vcpu: &mut dyn Vcpu) {
        if let Some(points) = &self.lock().points {
            // They were taken before.
            if let Err(error) = vcpu.set_debug_points(Some(points)) {
                tracing::warn!(%error, "a processor does not stop for the debugger");
            }
        }
    }

    /// Notes that processor `cpu` has stopped, whose thread this is.
    pub(super) fn stopped(&self, cpu: u32, stop: DebugStop) {
        self.lock().stops.push_back((cpu, stop));
        if let Some(tell) = self.on_stop.get() {
            tell();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// Calls `tell`, which must return soon, when a processor has stopped for the debugger, on its thread.
    /// All processors stop then, and the machine is to be stopped. There is one debugger: the first call
    /// stands.
    pub fn on_debug_stop(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.debugging().on_stop.set(Box::new(tell));
    }

    /// Sets where processors of this boot and of later ones stop; `None` without a debugger.
    ///
    /// # Errors
    ///
    /// As [`Control::ask`]: processors that did not answer stop where they did before.
    /// [`AskError::DebugPoints`]: all do.
    pub fn set_debug_points(&self, cpus: u32, points: Option<DebugPoints>) -> Result<(), AskError> {
        let before = std::mem::replace(&mut self.debugging().lock().points, points.clone());
        let set = self.ask(0..cpus, move |vcpu| vcpu.set_debug_points(points.as_ref()))?;
        if set.iter().any(Result::is_err) {
            self.debugging().lock().points = before;
            return Err(AskError::DebugPoints);
        }
        Ok(())
    }

    /// The processor that stopped for the debugger first, and why. Others that have stopped meanwhile stop
    /// again when they go on, unless for what they have watched: that is told of by the next call.
    pub fn take_debug_stop(&self) -> Option<(u32, DebugStop)> {
        let debugging = self.debugging();
        let stops = &mut debugging.lock().stops;
        let first = stops.pop_front();
        stops.retain(|(_, stop)| matches!(stop, DebugStop::Watchpoint { .. }));
        first
    }

    /// Forgets which processors have stopped for the debugger.
    pub fn forget_debug_stops(&self) {
        self.debugging().lock().stops.clear();
    }
}
