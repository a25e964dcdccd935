//! What a user who waits for a boot sees: nothing for a second, then a line that goes away when the command
//! runs.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::standard::Stderr;

/// A boot that takes no longer is not told of.
const QUIET: Duration = Duration::from_secs(1);
/// How often the line changes.
const TICK: Duration = Duration::from_secs(1);
/// Back to the start of the line, and clear it (ECMA-48, CR and EL).
const CLEAR: &str = "\r\x1b[K";

/// The line.
#[derive(Debug)]
pub(super) struct Waiting(Mutex<State>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// There is no line, and may be one.
    Hidden,
    Shown,
    /// There is to be none any more.
    Over,
}

impl Waiting {
    /// A line on standard error, if that is a terminal and the user wants one.
    pub(super) fn new(wanted: bool) -> Self {
        let shows = wanted && std::io::stderr().is_terminal();
        Self(Mutex::new(if shows { State::Hidden } else { State::Over }))
    }

    /// Shows how long it has taken. Returns when to do so again.
    pub(super) fn tick(&self, elapsed: Duration) -> Duration {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != State::Over && elapsed >= QUIET {
            show(&line(elapsed));
            *state = State::Shown;
        }
        TICK
    }

    /// Takes the line away, for good.
    pub(super) fn finish(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Shown {
            show(CLEAR);
        }
        *state = State::Over;
    }
}

fn line(elapsed: Duration) -> String {
    format!("{CLEAR}cloister: the machine boots: {} s", elapsed.as_secs())
}

fn show(text: &str) {
    // A terminal that does not take it goes without.
    let _ = Stderr.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_over_or_not_wanted_stays_away() {
        let waiting = Waiting::new(false);

        assert_eq!(waiting.tick(Duration::from_secs(9)), TICK);

        assert_eq!(*waiting.0.lock().unwrap(), State::Over);
        assert!(line(Duration::from_millis(2900)).ends_with(": 2 s"));
    }
}
