//! What is wrong with a line of QEMU's options.

use thiserror::Error;

use super::QemuWording;
use crate::complaint::Wording as _;
use crate::config::ConfigError;

/// An option that cannot be served. Each message is one line that names the option and the fix.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum QemuError {
    /// QEMU does not have it either.
    #[error("{0}: no such option: see cloister qemu -help")]
    NoSuchOption(String),
    /// QEMU has it.
    #[error("{0}: QEMU has this option and Cloister does not: leave it out")]
    OnlyInQemu(String),
    /// A word that is not an option, which QEMU takes for an IDE disk.
    #[error("{0}: QEMU takes this for an IDE disk: write -drive file=FILE,if=virtio,format=raw")]
    NotAnOption(String),
    /// A word that is not UTF-8.
    #[error("{0}: the word is not UTF-8: write it in UTF-8")]
    NotUtf8(String),
    /// The argument of the option, named without its dash, is missing.
    #[error("-{0}: it needs an argument: write one after it")]
    NoArgument(&'static str),
    /// An option that is given once at most.
    #[error("{0}: it is given twice: leave one out")]
    Twice(&'static str),
    /// A key that neither QEMU nor Cloister has.
    #[error("{option}: there is no key {key}: the keys are {keys}")]
    NoSuchKey {
        /// The option.
        option: &'static str,
        /// What was written.
        key: String,
        /// The keys that there are.
        keys: String,
    },
    /// A key that only QEMU has.
    #[error("{option}: QEMU has the key {key} and Cloister does not: leave it out")]
    KeyOnlyInQemu {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
    },
    /// A key that is given once at most.
    #[error("{option}: the key {key} is given twice: leave one out")]
    KeyTwice {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
    },
    /// A key that the option cannot do without.
    #[error("{option}: the key {key} is missing: write {example}")]
    KeyMissing {
        /// The option.
        option: &'static str,
        /// The key.
        key: &'static str,
        /// The option as it may look.
        example: &'static str,
    },
    /// A key without `=` that is neither on nor off.
    #[error("{option}: the key {key} has no value: write {key}=VALUE")]
    NoValue {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
    },
    /// A key that is on or off.
    #[error("{option}: {key} is on or off, not {value:?}")]
    NotBool {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
        /// What was written.
        value: String,
    },
    /// A value that is right in QEMU, of something that is always the same here.
    #[error("{option}: Cloister does not do {key}={value}: write {key}={only} or leave it out")]
    Only {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// What it is here.
        only: &'static str,
    },
    /// Any other value that cannot be used.
    #[error("{option}: {why}: {fix}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong.
        why: String,
        /// What to do.
        fix: String,
    },
    /// A value that who reads it refuses, with what to do.
    #[error("{option}: {refusal}")]
    Refused {
        /// The option.
        option: &'static str,
        /// What is wrong, and what to do.
        refusal: String,
    },
    /// One of the networks.
    #[error("{error} (network {id})")]
    Network {
        /// Which one.
        id: String,
        /// What is wrong with it.
        error: Box<Self>,
    },
    /// The machine as a whole.
    #[error("{}", QemuWording.line(&.0.complaint()))]
    Config(ConfigError),
}

impl From<ConfigError> for QemuError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl QemuError {
    /// [`QemuError::Value`].
    pub(super) fn value(
        option: &'static str,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::Value { option, why: why.into(), fix: fix.into() }
    }

    /// [`QemuError::Network`].
    pub(super) fn of_network(self, id: &str) -> Self {
        Self::Network { id: id.to_owned(), error: Box::new(self) }
    }

    /// [`QemuError::Refused`].
    pub(super) fn refused(option: &'static str, refusal: impl ToString) -> Self {
        Self::Refused { option, refusal: refusal.to_string() }
    }
}
