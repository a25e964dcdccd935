//! GRUB's configuration: its script language and the commands that choose what is booted, as GNU
//! GRUB 2.06 runs them (its manual, chapters 6 and 16; `cargo xtask grub-oracle` asks GRUB itself).

mod commands;
mod environment;
mod environment_block;
mod expand;
mod glob;
mod lex;
mod menu;
mod number;
mod parse;
mod regex;
mod run;
mod status;
mod test_command;
mod transcript;

pub(super) use menu::boot;

use thiserror::Error;

/// Why a configuration leads to no kernel.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum GrubError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {reason}")]
    Read {
        /// With its device.
        file: String,
        /// Why.
        reason: String,
    },
    /// The script runs on and on, or calls itself without an end.
    #[error("{0} does not come to an end")]
    Endless(String),
    /// No menu entry and no kernel.
    #[error("{0} has no menu entry")]
    NoEntry(String),
    /// No menu entry, and the commands load something else, or nothing.
    #[error("{file} {what}")]
    Commands {
        /// With its device.
        file: String,
        /// What they do instead.
        what: String,
    },
    /// The default entry loads something else, or nothing.
    #[error("the default entry {title:?} of {file} {what}")]
    NotLinux {
        /// With its device.
        file: String,
        /// The entry's title.
        title: String,
        /// What it does instead.
        what: String,
    },
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
