//! `cloister pki`, `cloister quote` and `cloister verify`: attestation for development, at the command
//! line. Each command's options, what it does and what it says are in one file.

mod files;
mod pki;
mod quote;
mod revocations;
mod verify;

pub use pki::{PkiArgs, pki};
pub use quote::{QuoteArgs, quote};
pub use verify::{VerifyArgs, verify};

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTimeError;

use cloister_attest::pki::{CollateralError, PkiError, UnknownTcbStatus};
use cloister_attest::quote::QuoteError;
use cloister_attest::verify::VerifyError;
use cloister_sgx::PlatformFuses;
use thiserror::Error;

use crate::platform_dir::{self, PlatformDirError, ProvisionError, provisioning_right};

/// Why a command of attestation fails. Each message is one line that names the option, and the fix.
#[derive(Debug, Error)]
pub enum AttestationError {
    /// The directory cannot be a platform.
    #[error("--platform: {0}")]
    Platform(PlatformDirError),
    /// The process has no right to the platform's provisioning key.
    #[error("--platform: what certifies follows from the provisioning key, and {0}")]
    Provision(ProvisionError),
    /// The list of what has been revoked cannot be used.
    #[error("--platform: {path}: {why}", path = .path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the fix.
        why: String,
    },
    /// A file cannot be read.
    #[error("{option}: cannot read {path}: {why}: name {what}", path = .path.display())]
    Read {
        /// Which option names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What is wanted.
        what: &'static str,
    },
    /// A file cannot be written.
    #[error("--out: cannot write {path}: {reason}: name one in a folder that you may write", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// A quote would go to a terminal.
    #[error("--out: a quote is not text, and standard output is a terminal: name a file")]
    Terminal,
    /// Standard output failed.
    #[error("standard output: it cannot be written: give it a file with room, or a pipe: {0}")]
    Output(io::Error),
    /// A TCB status that there is not.
    #[error("--tcb-status: {0}")]
    TcbStatus(UnknownTcbStatus),
    /// A number of days that there is not.
    #[error("--days: {0:?} is not a number of days: write 1 to 3650")]
    Days(String),
    /// A hexadecimal value of another length, or something else.
    #[error(
        "{option}: {text:?} is not {digits} hexadecimal digits: copy them from the signer's output"
    )]
    Hex {
        /// The option.
        option: &'static str,
        /// Its value.
        text: String,
        /// How many digits it has.
        digits: usize,
    },
    /// A number that is not one of 16 bits.
    #[error("{option}: {text:?} is not a number: write 0 to 65535")]
    Number {
        /// The option.
        option: &'static str,
        /// Its value.
        text: String,
    },
    /// Certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// There is no quote of a REPORT.
    #[error("--report: {0}")]
    Quote(QuoteError),
    /// What was read of `--collateral` is something else.
    #[error("--collateral: {0}: write it anew with cloister pki")]
    Collateral(CollateralError),
    /// The clock is before 1970.
    #[error("the host's clock is before 1970: set it: {0}")]
    Clock(SystemTimeError),
    /// The quote is not accepted.
    #[error("{}", verify::refusal(.0))]
    Refused(VerifyError),
}

/// The platform in `directory`, by `open`, for who may have its provisioning key: it certifies.
fn open_platform(
    directory: &Path,
    open: fn(&Path) -> Result<PlatformFuses, PlatformDirError>,
) -> Result<PlatformFuses, AttestationError> {
    let fuses = open(directory).map_err(AttestationError::Platform)?;
    provisioning_right(&platform_dir::provision_file(directory))
        .map_err(AttestationError::Provision)?;
    Ok(fuses)
}

#[cfg(test)]
mod tests;
