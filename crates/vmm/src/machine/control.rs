//! The handle on a machine that runs: input for its console, and the way to end it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::console::{ConsoleInputs, Screen};
use super::run::Stop;
use crate::terminal::Consumer;

/// A handle on a machine. A clone is the same handle.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    screen: Screen,
    quit: AtomicBool,
    /// The signal that asked to end the machine; 0 for none.
    signal: AtomicI32,
    boot: Mutex<Option<Boot>>,
}

/// What belongs to the boot that runs.
struct Boot {
    stop: Arc<Stop>,
    inputs: ConsoleInputs,
}

impl Control {
    /// A handle for one machine, whose consoles print to `screen`.
    #[must_use]
    pub fn new(screen: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Shared {
            screen: Arc::new(Mutex::new(screen)),
            quit: AtomicBool::new(false),
            signal: AtomicI32::new(0),
            boot: Mutex::new(None),
        }))
    }

    pub(super) fn screen(&self) -> Screen {
        self.0.screen.clone()
    }

    /// Ends the machine, or keeps it from starting.
    pub fn quit(&self) {
        self.0.quit.store(true, Ordering::SeqCst);
        if let Some(boot) = &*self.boot() {
            boot.stop.request();
        }
    }

    /// Ends the machine because of a signal. Returns whether one had asked for it before.
    #[must_use]
    pub fn quit_for(&self, signal: i32) -> bool {
        let again = self.0.signal.swap(signal, Ordering::SeqCst) != 0;
        self.quit();
        again
    }

    /// The signal that ended the machine, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        Some(self.0.signal.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// Sends bytes to the guest's console and returns how many were taken. Before the guest
    /// starts, none are.
    #[must_use]
    pub fn send(&self, bytes: &[u8]) -> usize {
        // Not under the lock: a console may deliver an interrupt on this thread.
        let inputs = self.boot().as_ref().map(|boot| boot.inputs.clone());
        inputs.map_or(0, |inputs| inputs.send(bytes))
    }

    /// Names what a new boot is reached by. Returns whether it may start.
    pub(super) fn begin(&self, stop: Arc<Stop>, inputs: ConsoleInputs) -> bool {
        *self.boot() = Some(Boot { stop, inputs });
        !self.quit_requested()
    }

    pub(super) fn end(&self) {
        *self.boot() = None;
    }

    pub(super) fn quit_requested(&self) -> bool {
        self.0.quit.load(Ordering::SeqCst)
    }

    fn boot(&self) -> std::sync::MutexGuard<'_, Option<Boot>> {
        self.0.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consumer for Control {
    fn send(&self, bytes: &[u8]) -> usize {
        Self::send(self, bytes)
    }

    fn quit(&self) {
        Self::quit(self);
    }
}
