//! Raw mode, undone on every way out: return, panic and signal.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The settings of standard input before raw mode. Global because a panic hook has nothing else
/// to find them by.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct RawMode(());

impl RawMode {
    /// Puts standard input into raw mode. `None` when it is not a terminal: a pipe needs nothing.
    ///
    /// # Errors
    ///
    /// The terminal refuses to tell or to change its settings.
    pub fn enter() -> io::Result<Option<Self>> {
        static PANIC_HOOK: Once = Once::new();
        let stdin = io::stdin();
        if !isatty(stdin.as_fd()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        PANIC_HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                report(panic);
            }));
        });
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives standard input the settings back that it had before raw mode. A second call does nothing.
pub fn restore() {
    give_back(&mut SAVED.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The same in a signal handler: it waits for no lock, which the interrupted thread may hold.
pub(crate) fn restore_from_signal() {
    if let Ok(mut saved) = SAVED.try_lock() {
        give_back(&mut saved);
    }
}

fn give_back(saved: &mut Option<Termios>) {
    if let Some(saved) = saved.take() {
        // Nobody is left to tell: the terminal is gone.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &saved);
    }
}
