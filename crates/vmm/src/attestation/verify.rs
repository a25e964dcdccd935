//! `cloister verify`: what a quote is worth.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use cloister_attest::pki::TcbStatus;
use cloister_attest::verify::{self as attest, Policy, PolicyError, Verdict, VerifyError};

use super::pccs::read_collateral;
use super::{AttestationError, files, is_confined};
use crate::platform_dir::{hex, unhex};
use crate::sandbox;

/// Options of `cloister verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Quote
    #[arg(value_name = "QUOTE")]
    quote: PathBuf,
    /// Root certificate, the only one that is trusted
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Folder with CRLs, TCB info and QE identity, as cloister pki writes it
    #[arg(long, value_name = "DIR")]
    collateral: PathBuf,
    /// MRENCLAVE that the enclave must have
    #[arg(long, value_name = "HEX", allow_hyphen_values = true)]
    mrenclave: Option<String>,
    /// MRSIGNER that the enclave must have
    #[arg(long, value_name = "HEX", allow_hyphen_values = true)]
    mrsigner: Option<String>,
    /// ISVPRODID that the enclave must have
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    isvprodid: Option<String>,
    /// ISVSVN that the enclave must have at least
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    isvsvn: Option<String>,
    /// REPORTDATA that the enclave must have given
    #[arg(long, value_name = "HEX", allow_hyphen_values = true)]
    report_data: Option<String>,
    /// Accept an enclave that can be debugged
    #[arg(long)]
    debug: bool,
    /// TCB statuses to accept besides UpToDate
    #[arg(long, value_name = "STATUS[,STATUS]...", allow_hyphen_values = true)]
    tcb_status: Option<String>,
    /// Confine the process to the system calls it needs: on or off
    #[arg(long, value_name = "on|off", default_value = "on")]
    sandbox: String,
}

impl VerifyArgs {
    fn policy(&self) -> Result<Policy, AttestationError> {
        let isvprodid = self.isvprodid.as_deref();
        let isvsvn = self.isvsvn.as_deref();
        let statuses = self.tcb_status.iter().flat_map(|list| list.split(','));
        let statuses: Result<Vec<TcbStatus>, _> = statuses.map(str::parse).collect();
        Ok(Policy {
            mrenclave: bytes("--mrenclave", self.mrenclave.as_deref())?,
            mrsigner: bytes("--mrsigner", self.mrsigner.as_deref())?,
            isvprodid: isvprodid.map(|text| number("--isvprodid", text)).transpose()?,
            min_isvsvn: isvsvn.map_or(Ok(0), |text| number("--isvsvn", text))?,
            reportdata: bytes("--report-data", self.report_data.as_deref())?,
            debug: self.debug,
            statuses: statuses.map_err(AttestationError::TcbStatus)?,
        })
    }
}

fn bytes<const N: usize>(
    option: &'static str,
    text: Option<&str>,
) -> Result<Option<[u8; N]>, AttestationError> {
    let Some(text) = text else { return Ok(None) };
    let bytes = unhex(text);
    bytes.map(Some).ok_or_else(|| AttestationError::Hex {
        option,
        text: text.into(),
        digits: 2 * N,
    })
}

fn number(option: &'static str, text: &str) -> Result<u16, AttestationError> {
    text.parse().map_err(|_| AttestationError::Number { option, text: text.into() })
}

/// Judges the quote, and says what it shows. From when all is read the calling thread is confined: it judges bytes
/// of others.
///
/// # Errors
///
/// [`AttestationError`]; [`AttestationError::Refused`] if it is not accepted.
pub fn verify(args: &VerifyArgs) -> Result<String, AttestationError> {
    let policy = args.policy()?;
    let confined = is_confined(&args.sandbox)?;
    let quote = files::read("QUOTE", &args.quote, "a quote")?;
    let root = files::read("--root", &args.root, "a certificate, such as root-ca.pem")?;
    let collateral =
        read_collateral("--collateral", &args.collateral, "a folder that cloister pki wrote")?;
    if confined {
        sandbox::confine_command(&[], false).map_err(AttestationError::Sandbox)?;
    }
    let verdict = attest::verify(&quote, &root, &collateral, SystemTime::now(), &policy);
    Ok(show(&verdict.map_err(AttestationError::Refused)?))
}

fn show(verdict: &Verdict) -> String {
    let Verdict { status, mrenclave, mrsigner, isvprodid, isvsvn, .. } = verdict;
    let platform = if verdict.is_software() {
        "a software platform: nothing here is about hardware"
    } else {
        "not one of Cloister's"
    };
    let advisories = match verdict.advisories.as_slice() {
        [] => "none".to_owned(),
        advisories => advisories.join(", "),
    };
    format!(
        "status      {status}\n\
         advisories  {advisories}\n\
         root        {}\n\
         platform    {platform}\n\
         FMSPC       {}\n\
         PPID        {}\n\
         MRENCLAVE   {}\n\
         MRSIGNER    {}\n\
         ISVPRODID   {isvprodid}\n\
         ISVSVN      {isvsvn}\n\
         debug       {}\n\
         REPORTDATA  {}\n",
        verdict.root,
        hex(&verdict.fmspc),
        hex(&verdict.ppid),
        hex(mrenclave),
        hex(mrsigner),
        if verdict.debug { "yes" } else { "no" },
        hex(&verdict.reportdata),
    )
}

/// Why a quote is not accepted, by the option that is against it.
pub(super) fn refusal(error: &VerifyError) -> String {
    let option = match error {
        VerifyError::Root | VerifyError::NotARoot(_) => {
            return format!("--root: {error}: name the root-ca.pem of cloister pki");
        }
        VerifyError::Collateral(error) => {
            return format!("--collateral: {error}: write it anew with cloister pki");
        }
        VerifyError::Policy(error) => match error {
            PolicyError::MrEnclave(_) => "--mrenclave",
            PolicyError::MrSigner(_) => "--mrsigner",
            PolicyError::IsvProdId(_) => "--isvprodid",
            PolicyError::IsvSvn { .. } => "--isvsvn",
            PolicyError::ReportData(_) => "--report-data",
            PolicyError::Debug => return format!("QUOTE: {error}: --debug would accept it"),
            PolicyError::Status(status) => {
                return format!("QUOTE: {error}: --tcb-status {status} would accept it");
            }
        },
        _ => "QUOTE",
    };
    format!("{option}: {error}: do not rely on the quote")
}
