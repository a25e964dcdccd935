//! The terminal that a machine's serial console is on.

mod escape;
mod input;
mod raw;
mod signals;

pub use escape::{Action, Escape, HELP};
pub(crate) use input::pump;
pub use input::{Consumer, read_input};
pub(crate) use raw::restore_from_signal;
pub use raw::{RawMode, restore};
pub(crate) use signals::Noted;
pub use signals::{SIGNALLED, hold_stop_signals, on_stop_signal, take_stop_signals};
