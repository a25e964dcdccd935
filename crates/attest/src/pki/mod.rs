//! A manufacturer's public key infrastructure: the certificates, revocation lists and signed TCB
//! information that verifiers of quotes ask for, in the forms of Intel's.
//!
//! Sources: "Intel SGX PCK Certificate and Certificate Revocation List Profile Specification",
//! and the API of Intel's Provisioning Certification Service, version 4 (TCB info V3, QE identity V2).
//!
//! Keys, certificates and serial numbers follow from the platform's secrets alone, so that quotes of
//! today and the certificates of next year belong together; signatures are deterministic (RFC 6979).
//! Only what expires (CRLs, TCB info, QE identity) has a date, which its [`Term`] gives.

mod certificate;
mod collateral;
mod crl;
mod names;
mod sgx_extension;
mod tcb;

pub use certificate::PckCertificate;
pub use collateral::{Collateral, CollateralError, FILES};
pub use crl::{Revocation, Revoked};
pub use names::Names;
pub use tcb::{TcbStatus, UnknownTcbStatus};

use std::time::{Duration, SystemTime};

use cloister_sgx::{PlatformFuses, SgxStatus};
use thiserror::Error;
use x509_cert::builder;
use x509_cert::der;
use x509_cert::der::{DateTime, EncodePem as _, pem::LineEnding};

use crate::pce;
use certificate::Issuer;
use names::Subject;

/// FMSPC of every software platform: "CLOIST" in ASCII, which is none of Intel's.
pub const FMSPC: [u8; 6] = *b"CLOIST";

/// Why nothing could be issued.
#[derive(Debug, Error)]
pub enum PkiError {
    /// The platform refuses the key of a CPUSVN.
    #[error("the platform has no such provisioning certification key: {0:?}")]
    Key(SgxStatus),
    /// A date before 1970 or after 9999.
    #[error("a date of the certificates is out of range: set the clock: {0}")]
    Date(der::Error),
    /// A certificate or CRL could not be put together.
    #[error("cannot make a certificate: {0}")]
    Certificate(builder::Error),
}

// Neither by `#[from]`, which makes a source: the messages have them already.
impl From<der::Error> for PkiError {
    fn from(error: der::Error) -> Self {
        Self::Date(error)
    }
}

impl From<builder::Error> for PkiError {
    fn from(error: builder::Error) -> Self {
        Self::Certificate(error)
    }
}

/// For how long something that expires is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    /// Since when.
    pub issued: SystemTime,
    /// How long from then on; Intel's is 30 days.
    pub length: Duration,
}

impl Term {
    fn issued(&self) -> Result<DateTime, PkiError> {
        Ok(DateTime::from_system_time(self.issued)?)
    }

    fn next_update(&self) -> Result<DateTime, PkiError> {
        let end =
            self.issued.checked_add(self.length).ok_or(der::ErrorKind::DateTime.to_error())?;
        Ok(DateTime::from_system_time(end)?)
    }
}

/// A platform that an authority answers for.
#[derive(Clone, Copy, Debug)]
pub struct Covered<'a> {
    /// The platform.
    pub platform: &'a PlatformFuses,
    /// What has been revoked: certificates of the platform, and of the authority.
    pub revoked: &'a [Revocation],
}

/// The certification authorities of a manufacturer: a root, and under it one for platforms and one
/// that signs what is known of TCBs.
#[derive(Debug)]
pub struct Authority {
    names: Names,
    root: Issuer,
    pck_ca: Issuer,
    tcb_signing: Issuer,
}

impl Authority {
    /// The authority of whoever has the secrets of `platform`. It may certify other platforms too.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn of_platform(platform: &PlatformFuses, names: Names) -> Result<Self, PkiError> {
        let key = |purpose| pce::p256_key(&platform.manufacturer_key(purpose));
        let root = Issuer::root(key("attestation root CA"), names)?;
        let pck_ca = root.subordinate(key("attestation PCK CA"), names, Subject::PckCa)?;
        let tcb_signing = root.subordinate(key("attestation TCB"), names, Subject::TcbSigning)?;
        Ok(Self { names, root, pck_ca, tcb_signing })
    }

    /// The root certificate: what a verifier is to trust.
    ///
    /// # Errors
    /// [`PkiError::Date`].
    pub fn root_pem(&self) -> Result<String, PkiError> {
        Ok(self.root.certificate.to_pem(LineEnding::LF)?)
    }

    /// The PCK certificate of `platform` for its present CPUSVN and a PCESVN.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn pck_certificate(
        &self,
        platform: &PlatformFuses,
        pcesvn: u16,
    ) -> Result<PckCertificate, PkiError> {
        let key = pce::pck(platform, platform.cpusvn, pcesvn).map_err(PkiError::Key)?;
        let extension = sgx_extension::encode(platform, pcesvn)?;
        let certificate = self.pck_ca.certify_pck(&key, self.names, extension)?;
        let issuers = [&self.pck_ca.certificate, &self.root.certificate];
        let chain = certificate::chain([&certificate].into_iter().chain(issuers))?;
        Ok(PckCertificate { key, certificate, chain })
    }

    /// Everything that a verifier needs besides the quote and the root, for quotes of these platforms.
    ///
    /// # Errors
    /// [`PkiError::Date`] if the term is out of range, [`PkiError::Certificate`].
    pub fn collateral(
        &self,
        platforms: &[Covered<'_>],
        term: &Term,
        status: TcbStatus,
    ) -> Result<Collateral, PkiError> {
        let mut serials = Vec::new();
        let mut cas = Vec::new();
        for Covered { platform, revoked } in platforms {
            for revocation in *revoked {
                if revocation.what != Revoked::Pck {
                    cas.push(revocation);
                    continue;
                }
                for pcesvn in 0..=pce::ISVSVN {
                    let pck = self.pck_certificate(platform, pcesvn)?.certificate;
                    let serial = pck.tbs_certificate().serial_number().clone();
                    serials.push((serial, revocation.since));
                }
            }
        }
        let pck_crl = self.pck_ca.crl(term, serials)?;
        let of = |what| match what {
            Revoked::TcbSigning => &self.tcb_signing,
            Revoked::Pck | Revoked::PckCa => &self.pck_ca,
        };
        let serials = cas.iter().map(|one| {
            (of(one.what).certificate.tbs_certificate().serial_number().clone(), one.since)
        });
        let root_crl = self.root.crl(term, serials.collect())?;
        let root = &self.root.certificate;
        let cpusvns = platforms.iter().map(|one| one.platform.cpusvn);
        let tcb_issuer_chain = certificate::chain([&self.tcb_signing.certificate, root])?;
        Ok(Collateral {
            root_crl,
            pck_crl,
            pck_crl_issuer_chain: certificate::chain([&self.pck_ca.certificate, root])?,
            tcb_info: tcb::tcb_info(&self.tcb_signing.key, cpusvns, term, status)?,
            qe_identity: tcb::qe_identity(&self.tcb_signing.key, term)?,
            tcb_issuer_chain,
        })
    }
}
