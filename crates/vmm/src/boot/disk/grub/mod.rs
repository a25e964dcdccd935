//! GRUB's configuration: the part of its script language that `grub-mkconfig` writes and people
//! add by hand (GNU GRUB manual 2.06, chapters 6 and 16).

mod commands;
mod environment_block;
mod lex;
mod menu;
mod parse;
mod run;
mod test_command;

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
    /// The script is not one.
    #[error("{file}, line {line}: {what}")]
    Syntax {
        /// With its device.
        file: String,
        /// From 1.
        line: u32,
        /// What is wrong there.
        what: &'static str,
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
mod tests;
