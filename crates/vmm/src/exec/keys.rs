//! Keys of a terminal in raw mode, which makes no signals of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::{SIGINT, SIGQUIT};

use super::streams::Offered;
use crate::machine::Control;

/// Ctrl-C and Ctrl-\.
const INTERRUPT: u8 = 3;
const QUIT: u8 = 0x1c;
/// Ctrl-], which ends the machine when it is typed so often within so long, as with systemd-nspawn and machinectl.
const ESCAPE: u8 = 0x1d;
const TIMES: usize = 3;
const SPAN: Duration = Duration::from_secs(1);

/// Keys that end a machine: those that would end any command as long as none runs, and one that no command can keep
/// from the user.
pub(super) struct Keys {
    control: Control,
    offered: Arc<Offered>,
    escape: Escape,
}

impl Keys {
    /// Those of a machine that has `offered` its streams.
    pub(super) fn new(control: Control, offered: Arc<Offered>) -> Self {
        Self { control, offered, escape: Escape::default() }
    }

    /// Looks at what was typed, which goes to the command all the same.
    pub(super) fn see(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        let runs = self.offered.is_reached();
        let signal = bytes.iter().find_map(|&byte| match byte {
            INTERRUPT if !runs => Some(SIGINT),
            QUIT if !runs => Some(SIGQUIT),
            byte if self.escape.is_complete(byte, now) => Some(SIGINT),
            _ => None,
        });
        if let Some(signal) = signal {
            self.control.quit_for(signal);
        }
    }
}

/// When [`ESCAPE`] was typed, without another key between.
#[derive(Default)]
struct Escape(Vec<Instant>);

impl Escape {
    fn is_complete(&mut self, byte: u8, now: Instant) -> bool {
        if byte != ESCAPE {
            self.0.clear();
            return false;
        }
        self.0.retain(|&then| now.duration_since(then) < SPAN);
        self.0.push(now);
        self.0.len() >= TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_ends_a_machine_is_typed_often_in_a_short_time() {
        let start = Instant::now();
        for (typed, complete) in [
            (&[(0, ESCAPE), (0, ESCAPE), (0, ESCAPE)][..], true),
            (&[(0, ESCAPE), (400, ESCAPE), (800, ESCAPE)], true),
            (&[(0, ESCAPE), (600, ESCAPE), (1200, ESCAPE), (1500, ESCAPE)], true),
            (&[(0, ESCAPE), (600, ESCAPE), (1200, ESCAPE), (1800, ESCAPE)], false),
            (&[(0, ESCAPE), (0, ESCAPE), (0, b'a'), (0, ESCAPE)], false),
            (&[(0, INTERRUPT), (0, INTERRUPT), (0, INTERRUPT)], false),
        ] {
            let mut escape = Escape::default();

            let found = typed.iter().any(|&(after, byte)| {
                escape.is_complete(byte, start + Duration::from_millis(after))
            });

            assert_eq!(found, complete, "{typed:?}");
        }
    }
}
