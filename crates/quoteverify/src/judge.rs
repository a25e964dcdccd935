//! What a quote is worth under the root of a folder.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cloister_attest::pki::{Collateral, FILES, TcbStatus};
use cloister_attest::verify::{self, Policy, PolicyError, Verdict, VerifyError};

/// Bytes of a quote, a certificate or a list at most.
const LONGEST: u64 = 1 << 20;

/// Why a function does nothing (`quote3_error_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    InvalidParameter = 0xe002,
    InterfaceUnavailable = 0xe00d,
    NoCollateral = 0xe01b,
    QuoteFormat = 0xe01d,
    CollateralVersion = 0xe053,
    SupplementalVersion = 0xe064,
}

/// What a quote is worth (`sgx_ql_qv_result_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Worth {
    Ok = 0,
    ConfigNeeded = 0xa001,
    OutOfDate = 0xa002,
    OutOfDateConfigNeeded = 0xa003,
    InvalidSignature = 0xa004,
    Revoked = 0xa005,
    Unspecified = 0xa006,
    SwHardeningNeeded = 0xa007,
    ConfigAndSwHardeningNeeded = 0xa008,
}

/// What is said of a quote.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) worth: Worth,
    /// Collateral has expired at the time that was asked about.
    pub(crate) expired: bool,
    /// What the quote says, where it can be believed.
    pub(crate) verdict: Option<Verdict>,
}

/// A root and collateral, as `cloister pki` writes them.
#[derive(Debug)]
pub(crate) struct Trusted {
    root: Vec<u8>,
    collateral: Collateral,
}

impl Trusted {
    /// Reads a folder. The error is a line.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path = folder.join(name);
            let length = fs::metadata(&path).map(|file| file.len());
            let bytes = length.and_then(|length| match length {
                0..=LONGEST => fs::read(&path),
                _ => Err(std::io::ErrorKind::FileTooLarge.into()),
            });
            bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let [a, b, c, d, e, f] = FILES.map(read);
        let collateral = Collateral::from_files([a?, b?, c?, d?, e?, f?]);
        let collateral = collateral.map_err(|error| error.to_string())?;
        Ok(Self { root: read("root-ca.pem")?, collateral })
    }

    /// Judges a quote at a second since 1970.
    pub(crate) fn judge(&self, quote: &[u8], second: u64) -> Result<Judgement, Failure> {
        if !verify::is_quote(quote) {
            return Err(Failure::QuoteFormat);
        }
        let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(second));
        let now = now.ok_or(Failure::InvalidParameter)?;
        let term = self.collateral.term().ok_or(Failure::NoCollateral)?;
        // Collateral that has expired is said beside the worth: that at the time when it was issued.
        let expired = now >= term.end;
        let at = if expired { term.start } else { now };
        Ok(Judgement { expired, ..self.judge_at(quote, at)? })
    }

    fn judge_at(&self, quote: &[u8], now: SystemTime) -> Result<Judgement, Failure> {
        // The caller has a policy of its own.
        let policy = Policy { debug: true, statuses: TcbStatus::ALL.into(), ..Policy::default() };
        let judged = verify::verify(quote, &self.root, &self.collateral, now, &policy);
        let (worth, verdict) = match judged {
            Ok(verdict) => (worth(verdict.status), Some(verdict)),
            Err(VerifyError::Policy(PolicyError::Status(TcbStatus::Revoked))) => {
                (Worth::Revoked, None)
            }
            Err(VerifyError::Rejected(why)) if why.contains("Revoked") => (Worth::Revoked, None),
            Err(VerifyError::Rejected(_)) => (Worth::InvalidSignature, None),
            Err(VerifyError::Root | VerifyError::NotARoot(_) | VerifyError::Collateral(_)) => {
                return Err(Failure::NoCollateral);
            }
            Err(_) => (Worth::Unspecified, None),
        };
        Ok(Judgement { worth, expired: false, verdict })
    }
}

fn worth(status: TcbStatus) -> Worth {
    match status {
        TcbStatus::UpToDate => Worth::Ok,
        TcbStatus::SWHardeningNeeded => Worth::SwHardeningNeeded,
        TcbStatus::ConfigurationNeeded => Worth::ConfigNeeded,
        TcbStatus::ConfigurationAndSWHardeningNeeded => Worth::ConfigAndSwHardeningNeeded,
        TcbStatus::OutOfDate => Worth::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded => Worth::OutOfDateConfigNeeded,
        TcbStatus::Revoked => Worth::Revoked,
    }
}
