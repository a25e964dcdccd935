//! Judging quotes, with the public verifier `dcap-qvl` and a policy.

use std::time::SystemTime;

use cloister_sgx::AttributeFlags;
use dcap_qvl::QuotePolicy;
use dcap_qvl::quote::Quote;
use dcap_qvl::verify::QuoteVerifier;
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, DecodePem as _, Encode as _};

use crate::pki::{Collateral, CollateralError, FMSPC, TcbStatus, UnknownTcbStatus};

/// What a relying party asks of an enclave besides a quote that is right. The default is an enclave of
/// any identity that is not one for debugging, on a platform that is up to date.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// The MRENCLAVE that it must have.
    pub mrenclave: Option<[u8; 32]>,
    /// The MRSIGNER that it must have.
    pub mrsigner: Option<[u8; 32]>,
    /// The ISVPRODID that it must have.
    pub isvprodid: Option<u16>,
    /// The ISVSVN that it must have at least.
    pub min_isvsvn: u16,
    /// The REPORTDATA that it must have.
    pub reportdata: Option<[u8; 64]>,
    /// Whether its attribute DEBUG may be set.
    pub debug: bool,
    /// TCB statuses that are accepted besides UpToDate. [`TcbStatus::Revoked`] never is.
    pub statuses: Vec<TcbStatus>,
}

/// What a quote that was accepted says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What TCB info and QE identity say of the platform.
    pub status: TcbStatus,
    /// Advisories that apply to it.
    pub advisories: Vec<String>,
    /// MRENCLAVE.
    pub mrenclave: [u8; 32],
    /// MRSIGNER.
    pub mrsigner: [u8; 32],
    /// ISVPRODID.
    pub isvprodid: u16,
    /// ISVSVN.
    pub isvsvn: u16,
    /// Whether the enclave can be debugged.
    pub debug: bool,
    /// REPORTDATA.
    pub reportdata: [u8; 64],
    /// FMSPC of the platform.
    pub fmspc: [u8; 6],
    /// PPID of the platform.
    pub ppid: Vec<u8>,
    /// The subject of the root that all of it rests on.
    pub root: String,
}

impl Verdict {
    /// Whether the platform is a software platform of Cloister's, by its FMSPC.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.fmspc == FMSPC
    }
}

/// Why a quote is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum VerifyError {
    /// The root is not a certificate.
    #[error("the root is not a certificate in PEM or DER")]
    Root,
    /// The root was issued by another authority.
    #[error("the root is issued by another, {0}")]
    NotARoot(String),
    /// The collateral cannot be read.
    #[error(transparent)]
    Collateral(#[from] CollateralError),
    /// The time is before 1970.
    #[error("the time is before 1970: set the clock")]
    Time,
    /// The quote is not one, its signatures do not lead to the root, something has expired or been
    /// revoked, or the platform's TCB has been.
    #[error("{0}")]
    Rejected(String),
    /// The quote is not of an SGX enclave.
    #[error("it is not a quote of an SGX enclave")]
    NotSgx,
    /// A status that only other TEEs have.
    #[error(transparent)]
    Status(#[from] UnknownTcbStatus),
    /// The quote is right and the policy is against it.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What a policy is against.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PolicyError {
    /// Another MRENCLAVE.
    #[error("MRENCLAVE is {}, which is not the one asked for", lower(.0))]
    MrEnclave([u8; 32]),
    /// Another MRSIGNER.
    #[error("MRSIGNER is {}, which is not the one asked for", lower(.0))]
    MrSigner([u8; 32]),
    /// Another ISVPRODID.
    #[error("ISVPRODID is {0}, which is not the one asked for")]
    IsvProdId(u16),
    /// An ISVSVN that is too low.
    #[error("ISVSVN is {found}, and {min} is asked for at least")]
    IsvSvn {
        /// The enclave's.
        found: u16,
        /// The policy's.
        min: u16,
    },
    /// Other REPORTDATA.
    #[error("REPORTDATA is {}, which is not what was asked for", lower(.0))]
    ReportData([u8; 64]),
    /// An enclave for debugging.
    #[error("the enclave can be debugged, which is not allowed")]
    Debug,
    /// A TCB status that is not accepted.
    #[error("the TCB status is {0}, which is not allowed")]
    Status(TcbStatus),
}

fn lower(bytes: &[u8]) -> String {
    crate::hex::upper(bytes).to_lowercase()
}

/// Judges `quote` at the time `now` under `root`, a certificate in PEM or DER that is all that is
/// trusted.
///
/// # Errors
/// [`VerifyError`]: the quote is to be taken for nothing.
pub fn verify(
    quote: &[u8],
    root: &[u8],
    collateral: &Collateral,
    now: SystemTime,
    policy: &Policy,
) -> Result<Verdict, VerifyError> {
    let root = parse_root(root).ok_or(VerifyError::Root)?;
    let root_der = root.to_der().map_err(|_| VerifyError::Root)?;
    // The verifier panics over one whose issuer is another: it looks for its revocation.
    let (subject, issuer) = (root.tbs_certificate().subject(), root.tbs_certificate().issuer());
    if subject.to_der().ok() != issuer.to_der().ok() {
        return Err(VerifyError::NotARoot(one_line(&issuer.to_string())));
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| VerifyError::Time)?.as_secs();
    // The policy is judged below, where it has names.
    let claims = QuoteVerifier::<dcap_qvl::configs::RustCryptoConfig>::new_with_config(root_der)
        .allow_debug(true)
        .verify_with_policy(quote, collateral.to_qvl()?, now, &QuotePolicy::claims_only(now))
        .map_err(|error| VerifyError::Rejected(one_line(&format!("{error:#}"))))?;
    let report = claims.report.as_sgx().ok_or(VerifyError::NotSgx)?;
    let flags = u64::from_le_bytes(core::array::from_fn(|at| report.attributes[at]));
    let verdict = Verdict {
        status: claims.tcb.status.to_string().parse()?,
        advisories: claims.tcb.advisory_ids.clone(),
        mrenclave: report.mr_enclave,
        mrsigner: report.mr_signer,
        isvprodid: report.isv_prod_id,
        isvsvn: report.isv_svn,
        debug: AttributeFlags::from_bits_retain(flags).contains(AttributeFlags::DEBUG),
        reportdata: report.report_data,
        fmspc: claims.platform.pck.fmspc,
        ppid: claims.platform.pck.ppid.clone(),
        root: root.tbs_certificate().subject().to_string(),
    };
    policy.judge(&verdict)?;
    Ok(verdict)
}

/// Whether bytes have the form of a quote, whatever it is worth.
#[must_use]
pub fn is_quote(bytes: &[u8]) -> bool {
    Quote::parse(bytes).is_ok()
}

impl Policy {
    fn judge(&self, verdict: &Verdict) -> Result<(), PolicyError> {
        if self.mrenclave.is_some_and(|asked| asked != verdict.mrenclave) {
            return Err(PolicyError::MrEnclave(verdict.mrenclave));
        }
        if self.mrsigner.is_some_and(|asked| asked != verdict.mrsigner) {
            return Err(PolicyError::MrSigner(verdict.mrsigner));
        }
        if self.isvprodid.is_some_and(|asked| asked != verdict.isvprodid) {
            return Err(PolicyError::IsvProdId(verdict.isvprodid));
        }
        if verdict.isvsvn < self.min_isvsvn {
            return Err(PolicyError::IsvSvn { found: verdict.isvsvn, min: self.min_isvsvn });
        }
        if self.reportdata.is_some_and(|asked| asked != verdict.reportdata) {
            return Err(PolicyError::ReportData(verdict.reportdata));
        }
        if verdict.debug && !self.debug {
            return Err(PolicyError::Debug);
        }
        if verdict.status != TcbStatus::UpToDate && !self.statuses.contains(&verdict.status) {
            return Err(PolicyError::Status(verdict.status));
        }
        Ok(())
    }
}

fn parse_root(bytes: &[u8]) -> Option<Certificate> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.trim_start().starts_with("-----") => Certificate::from_pem(text).ok(),
        _ => Certificate::from_der(bytes).ok(),
    }
}

/// An error's text, whatever it quotes, on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
