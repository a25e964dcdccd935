//! What a user sees who waits for a boot or a download: nothing for a second, then a line that goes away at its end.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::standard::Stderr;

/// What takes no longer is not told of.
const QUIET: Duration = Duration::from_secs(1);
/// How often the line changes.
const TICK: Duration = Duration::from_secs(1);
/// Back to the start of the line, and clear it (ECMA-48, CR and EL).
const CLEAR: &str = "\r\x1b[K";
/// What does not fit on the line is left out, or goes on on the next, as terminals do at first (DEC's DECAWM).
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// The line.
#[derive(Debug)]
pub(super) struct Waiting(Mutex<State>);

#[derive(PartialEq, Eq, Debug)]
enum State {
    /// There is no line, and may be one.
    Hidden,
    Shown(String),
    /// There is to be none any more.
    Over,
}

impl Waiting {
    /// A line on standard error, if that is a terminal and the user wants one.
    pub(super) fn new(wanted: bool) -> Self {
        let shows = wanted && std::io::stderr().is_terminal();
        Self(Mutex::new(if shows { State::Hidden } else { State::Over }))
    }

    /// Whether it may show something.
    pub(super) fn shows(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) != State::Over
    }

    /// Shows what is waited for, and how long it has taken. Returns when to do so again.
    pub(super) fn tick(&self, what: &str, elapsed: Duration) -> Duration {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = line(what, elapsed);
        let is_shown = matches!(&*state, State::Shown(before) if *before == shown);
        if *state != State::Over && !is_shown && elapsed >= QUIET {
            show(&shown);
            *state = State::Shown(shown);
        }
        TICK
    }

    /// Takes the line away, for good.
    pub(super) fn finish(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Shown(_) = *state {
            show(CLEAR);
        }
        *state = State::Over;
    }
}

fn line(what: &str, elapsed: Duration) -> String {
    format!("{CLEAR}{CUT}cloister: {what}, {} s{WRAP}", elapsed.as_secs())
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

        assert_eq!(waiting.tick("it boots", Duration::from_secs(9)), TICK);

        assert_eq!(*waiting.0.lock().unwrap(), State::Over);
        assert!(line("it boots", Duration::from_millis(2900)).contains("cloister: it boots, 2 s"));
    }
}
