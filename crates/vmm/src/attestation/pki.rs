//! `cloister pki`: what a platform's manufacturer publishes.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use cloister_attest::pki::{Authority, FILES, Names, TcbStatus, Term};
use cloister_attest::{pce, quoting_enclave};
use zerocopy::IntoBytes as _;

use super::revocations::{self, Certificate};
use super::{AttestationError, files, open_platform};
use crate::platform_dir;

/// The root certificate.
const ROOT: &str = "root-ca.pem";
/// What an enclave gives to EREPORT for a REPORT that is to be quoted.
const TARGET_INFO: &str = "qe-target-info";
/// Where it goes in the platform's directory.
const DEFAULT_OUT: &str = "pki";
const DAY: Duration = Duration::from_secs(86_400);
/// About ten years.
const MOST_DAYS: u32 = 3650;

/// Options of `cloister pki`.
#[derive(Args, Debug)]
pub struct PkiArgs {
    /// Directory of the SGX platform, created on first use
    #[arg(long, value_name = "DIR")]
    platform: PathBuf,
    /// Folder for certificates and what else is published [default: pki in the platform's directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What the TCB info says of the platform: UpToDate, SWHardeningNeeded, ConfigurationNeeded,
    /// ConfigurationAndSWHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded or Revoked
    #[arg(long, value_name = "STATUS", default_value = "UpToDate", allow_hyphen_values = true)]
    tcb_status: String,
    /// Days until CRLs, TCB info and QE identity expire
    #[arg(long, value_name = "N", default_value = "30", allow_hyphen_values = true)]
    days: String,
    /// Give certificates the names that Intel's have, for verifiers that demand them
    #[arg(long)]
    intel_names: bool,
    /// What else to do first
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Revoke certificates for good
    Revoke {
        /// Which
        #[arg(required = true, value_enum)]
        certificates: Vec<Certificate>,
    },
}

/// Whose names certificates have.
pub(super) fn names(intel: bool) -> Names {
    if intel { Names::Intel } else { Names::Cloister }
}

/// Writes all of it, and says what was written.
///
/// # Errors
///
/// [`AttestationError`].
pub fn pki(args: &PkiArgs) -> Result<String, AttestationError> {
    let status: TcbStatus = args.tcb_status.parse().map_err(AttestationError::TcbStatus)?;
    let days = args.days.parse().ok().filter(|days| (1..=MOST_DAYS).contains(days));
    let days: u32 = days.ok_or_else(|| AttestationError::Days(args.days.clone()))?;
    let platform = open_platform(&args.platform, platform_dir::open)?;
    let now = SystemTime::now();
    if let Some(Action::Revoke { certificates }) = &args.action {
        revocations::add(&args.platform, certificates, now)?;
    }
    let revoked = revocations::read(&args.platform)?;

    let authority = Authority::of_platform(&platform, names(args.intel_names))?;
    let term = Term { issued: now, length: DAY * days };
    let collateral = authority.collateral(&platform, &term, status, &revoked)?;
    let out = args.out.clone().unwrap_or_else(|| args.platform.join(DEFAULT_OUT));
    fs::create_dir_all(&out)
        .map_err(|reason| AttestationError::Write { path: out.clone(), reason })?;
    let write = |name: &str, bytes: &[u8]| files::write(&out.join(name), bytes);
    write(ROOT, authority.root_pem()?.as_bytes())?;
    write(TARGET_INFO, quoting_enclave::target_info().as_bytes())?;
    for (name, bytes) in FILES.into_iter().zip(collateral.to_files()) {
        write(name, bytes)?;
    }
    for pcesvn in 1..=pce::ISVSVN {
        let pck = authority.pck_certificate(&platform, pcesvn)?;
        write(&format!("pck-chain-{pcesvn}.pem"), pck.chain().as_bytes())?;
    }
    Ok(format!(
        "{out}: the root ({ROOT}), certificates for PCESVN 1 to {svn}, CRLs, TCB info ({status}) and \
         QE identity for {days} days\nThis is a development root: what it certifies proves nothing \
         about hardware.\n",
        out = out.display(),
        svn = pce::ISVSVN,
    ))
}
