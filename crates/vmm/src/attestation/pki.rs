//! `cloister pki`: what a platform's manufacturer publishes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use cloister_attest::pki::{
    Authority, Collateral, Covered, FILES, Revocation, Revoked, TcbStatus, Term,
};
use cloister_attest::{pce, quoting_enclave};
use cloister_sgx::PlatformFuses;
use zerocopy::IntoBytes as _;

use super::certified::{PLATFORM, names, open_authority, open_platform};
use super::revocations::{self, Certificate};
use super::{AttestationError, files};
use crate::files::is_same;
use crate::platform_dir::{self, hex};

/// The root certificate.
const ROOT: &str = "root-ca.pem";
/// What an enclave gives to EREPORT for a REPORT that is to be quoted.
const TARGET_INFO: &str = "qe-target-info";
/// The quoting enclave's identifier on the platform, in hexadecimal.
pub(super) const QE_ID: &str = "qe-id";
/// Where all goes in the platform's directory.
pub(super) const DEFAULT_OUT: &str = "pki";
const DAY: Duration = Duration::from_secs(86_400);
/// About ten years.
const MOST_DAYS: u32 = 3650;

/// Options of `cloister pki`.
#[derive(Args, Debug)]
pub struct PkiArgs {
    /// Directory of the SGX platform, created on first use; with --authority it can be given several times
    #[arg(long, value_name = "DIR", required = true)]
    platform: Vec<PathBuf>,
    /// Directory of the platform whose keys certify all of these, created on first use [default: each its own]
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
    /// Folder for certificates and what else is published, of one platform [default: pki in its directory]
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

/// Writes all of it, and says what was written.
///
/// # Errors
///
/// [`AttestationError`].
pub fn pki(args: &PkiArgs) -> Result<String, AttestationError> {
    let status: TcbStatus = args.tcb_status.parse().map_err(AttestationError::TcbStatus)?;
    let days = args.days.parse().ok().filter(|days| (1..=MOST_DAYS).contains(days));
    let days: u32 = days.ok_or_else(|| AttestationError::Days(args.days.clone()))?;
    if args.platform.len() > 1 && args.authority.is_none() {
        return Err(AttestationError::OwnAuthorities);
    }
    if args.platform.len() > 1 && args.out.is_some() {
        return Err(AttestationError::OneFolder);
    }
    for (number, directory) in args.platform.iter().enumerate() {
        if args.platform[..number].iter().any(|other| is_same(other, directory)) {
            return Err(AttestationError::Twice(directory.clone()));
        }
    }
    let platforms = args
        .platform
        .iter()
        .map(|directory| open_platform(PLATFORM, directory, platform_dir::open));
    let platforms: Vec<PlatformFuses> = platforms.collect::<Result<_, _>>()?;
    if let Some(out) = &args.out {
        let there = fs::read_to_string(out.join(QE_ID)).unwrap_or_default();
        if !there.is_empty() && there != qe_id(&platforms[0]) {
            return Err(AttestationError::OtherPlatform(out.clone()));
        }
    }
    let authority = match &args.authority {
        Some(directory) => open_authority(directory, args.intel_names, platform_dir::open)?,
        None => Authority::of_platform(&platforms[0], names(args.intel_names))?,
    };
    // Whose list has the authority's revocations.
    let authority_directory = args.authority.as_ref().unwrap_or(&args.platform[0]);
    let now = SystemTime::now();
    if let Some(Action::Revoke { certificates }) = &args.action {
        revoke(&args.platform, authority_directory, certificates, now)?;
    }
    let of_authority = revocations::read(authority_directory)?;
    let of_authority = of_authority.into_iter().filter(|one| one.what != Revoked::Pck);
    let of_authority: Vec<Revocation> = of_authority.collect();
    let of_platforms = args.platform.iter().map(|directory| {
        let revoked = revocations::read(directory)?.into_iter();
        let pcks = revoked.filter(|one| one.what == Revoked::Pck);
        Ok(pcks.chain(of_authority.iter().copied()).collect())
    });
    let of_platforms: Vec<Vec<Revocation>> =
        of_platforms.collect::<Result<_, AttestationError>>()?;
    let covered = platforms.iter().zip(&of_platforms);
    let covered: Vec<Covered<'_>> =
        covered.map(|(platform, revoked)| Covered { platform, revoked }).collect();

    let term = Term { issued: now, length: DAY * days };
    let collateral = authority.collateral(&covered, &term, status)?;
    let mut said = String::new();
    for (directory, platform) in args.platform.iter().zip(&platforms) {
        let out = args.out.clone().unwrap_or_else(|| directory.join(DEFAULT_OUT));
        publish(&out, platform, &authority, &collateral)?;
        said += &format!(
            "{out}: the root ({ROOT}), certificates for PCESVN 1 to {svn}, CRLs, TCB info ({status}) \
             and QE identity for {days} days\n",
            out = out.display(),
            svn = pce::ISVSVN,
        );
    }
    said += "This is a development root: what it certifies proves nothing about hardware.\n";
    Ok(said)
}

/// The contents of [`QE_ID`].
fn qe_id(platform: &PlatformFuses) -> String {
    format!("{}\n", hex(&quoting_enclave::id(platform)))
}

/// Notes what is revoked from now on, each where it belongs.
fn revoke(
    platforms: &[PathBuf],
    authority: &Path,
    certificates: &[Certificate],
    now: SystemTime,
) -> Result<(), AttestationError> {
    let (pcks, others): (Vec<Certificate>, Vec<Certificate>) =
        certificates.iter().partition(|&&one| one == Certificate::Pck);
    if !others.is_empty() {
        revocations::add(authority, &others, now)?;
    }
    if !pcks.is_empty() {
        for platform in platforms {
            revocations::add(platform, &pcks, now)?;
        }
    }
    Ok(())
}

/// Writes the files of a platform.
fn publish(
    out: &Path,
    platform: &PlatformFuses,
    authority: &Authority,
    collateral: &Collateral,
) -> Result<(), AttestationError> {
    fs::create_dir_all(out)
        .map_err(|reason| AttestationError::Write { path: out.to_owned(), reason })?;
    let write = |name: &str, bytes: &[u8]| files::write(&out.join(name), bytes);
    write(ROOT, authority.root_pem()?.as_bytes())?;
    write(TARGET_INFO, quoting_enclave::target_info().as_bytes())?;
    write(QE_ID, qe_id(platform).as_bytes())?;
    for (name, bytes) in FILES.into_iter().zip(collateral.to_files()) {
        write(name, bytes)?;
    }
    for pcesvn in 1..=pce::ISVSVN {
        let pck = authority.pck_certificate(platform, pcesvn)?;
        write(&pck_chain(pcesvn), pck.chain().as_bytes())?;
    }
    Ok(())
}

/// The name of the file with the certificate for a PCESVN.
pub(super) fn pck_chain(pcesvn: u16) -> String {
    format!("pck-chain-{pcesvn}.pem")
}
