//! `cloister pki`, `cloister quote`, `cloister verify`, `cloister pccs` and `cloister aesm`: attestation for development, at the
//! command line. Each command's options, what it does and what it says are in one file. [`service`] is the process that
//! quotes for the machine of `cloister exec --attest`.

mod aesm;
mod certified;
mod files;
mod pccs;
mod pki;
mod quote;
mod revocations;
mod service;
mod verify;

pub use aesm::{AesmArgs, aesm};
pub use certified::Certified;
pub use pccs::{PccsArgs, pccs};
pub use pki::{PkiArgs, pki};
pub use quote::{QuoteArgs, quote};
pub use service::ServiceError;
pub(crate) use service::start_service;
pub use verify::{VerifyArgs, verify};

use std::io;
use std::path::PathBuf;
use std::time::SystemTimeError;

use cloister_attest::pccs::{PccsError, PlatformError};
use cloister_attest::pki::{CollateralError, PkiError, UnknownTcbStatus};
use cloister_attest::quote::QuoteError;
use cloister_attest::verify::VerifyError;
use cloister_epc_view::HttpError;
use thiserror::Error;

use crate::cli::{RunWording, on_or_off};
use crate::complaint::Wording as _;
use crate::platform_dir::{PlatformDirError, ProvisionError};
use crate::qmp::{ListenError, ServeError};
use crate::sandbox::SandboxError;

/// Why a command of attestation fails. Each message is one line that names the option, and the fix.
#[derive(Debug, Error)]
pub enum AttestationError {
    /// The directory cannot be a platform.
    #[error("{option}: {why}")]
    Platform {
        /// Which option names it.
        option: &'static str,
        /// What is wrong with it.
        why: PlatformDirError,
    },
    /// The process has no right to the platform's provisioning key.
    #[error("{option}: what certifies follows from the provisioning key, and {why}")]
    Provision {
        /// Which option names the platform.
        option: &'static str,
        /// Why it has none.
        why: ProvisionError,
    },
    /// Several platforms, each of which would be its own authority.
    #[error(
        "--platform: it is given several times, and each would have a root of its own: name one --authority DIR"
    )]
    OwnAuthorities,
    /// A platform that is named twice.
    #[error("--platform: {} is given twice: leave one out", .0.display())]
    Twice(PathBuf),
    /// Several platforms, and one folder for what is published of each.
    #[error(
        "--out: there are several platforms, and the folder is one: leave it out, or name one --platform"
    )]
    OneFolder,
    /// A file of a platform's, or the REPORT, in whose place the quote would be.
    #[error("--out: {} is a file of the platform's, or the REPORT: name another", .0.display())]
    Taken(PathBuf),
    /// A folder with what is published of another platform.
    #[error("--out: {} has the files of another platform: name another folder", .0.display())]
    OtherPlatform(PathBuf),
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
    /// Nothing can be served at the address.
    #[error("--listen: {0}")]
    Listen(HttpError),
    /// All of the machine's option.
    #[error("--vsock: {} is the value of the machine's option: name its SOCK alone", .0.display())]
    VsockOption(PathBuf),
    /// The machine's socket has no name for a port's.
    #[error("--vsock: {0}")]
    Vsock(ListenError),
    /// The socket of the port cannot be made.
    #[error("--vsock: {0}")]
    Socket(ServeError),
    /// What is to be served was not published by `cloister pki`.
    #[error("--platform: {path}: {why}: write it anew with cloister pki", path = .path.display())]
    Published {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: PlatformError,
    },
    /// Platforms cannot be served together.
    #[error(
        "--platform: {0}: certify them with one cloister pki --authority DIR, or serve each by itself"
    )]
    Together(PccsError),
    /// The process cannot be confined.
    #[error("{}", RunWording.line(&.0.complaint()))]
    Sandbox(SandboxError),
    /// `--sandbox` is neither on nor off.
    #[error("--sandbox: it is on or off, not {0:?}: leave it out, and it is on")]
    OnOrOff(String),
    /// The host refuses what a service needs.
    #[error("the host does not let signals through: {0}")]
    Host(io::Error),
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

/// What `--sandbox` says.
fn is_confined(text: &str) -> Result<bool, AttestationError> {
    on_or_off(text).ok_or_else(|| AttestationError::OnOrOff(text.to_owned()))
}

#[cfg(test)]
mod tests;
