//! Platforms, and REPORTs of enclaves on them.

use std::time::{Duration, SystemTime};

use aes::Aes128;
use cloister_attest::pki::{Authority, Collateral, Covered, Names, Revocation, TcbStatus, Term};
use cloister_attest::quote::{QuoteError, Quoter};
use cloister_attest::quoting_enclave as qe;
use cloister_attest::verify::{Policy, Verdict, VerifyError, verify};
use cloister_sgx::layout::{KeyRequest, Report, key_name};
use cloister_sgx::{AttributeFlags, Attributes, EnclaveIdentity, PlatformFuses, PlatformIdentity};
use cmac::{Cmac, KeyInit as _, Mac as _};
use zerocopy::{FromZeros as _, IntoBytes as _};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// 2026-11-29 12:00:00.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_953_600)
}

/// The platform that a number stands for.
pub(crate) fn platform(number: u8) -> PlatformFuses {
    PlatformIdentity::from_seed(&[number; 32]).fuses
}

/// An enclave's REPORT without a MAC.
pub(crate) fn unsigned_report(platform: &PlatformFuses) -> Report {
    Report {
        cpusvn: platform.cpusvn,
        attributes: Attributes::new(AttributeFlags::INIT | AttributeFlags::MODE64BIT, 3),
        mrenclave: [0x11; 32],
        mrsigner: [0x22; 32],
        isvprodid: 7.into(),
        isvsvn: 3.into(),
        reportdata: [0x33; 64],
        keyid: [0x44; 32],
        ..Report::new_zeroed()
    }
}

/// The REPORT with the MAC for the quoting enclave: by the key that the quoting enclave would get from
/// EGETKEY.
pub(crate) fn maced(platform: &PlatformFuses, mut report: Report) -> Report {
    let target = qe::target_info();
    let enclave = EnclaveIdentity {
        mrenclave: target.measurement,
        mrsigner: qe::mrsigner(),
        isvprodid: qe::ISVPRODID,
        isvsvn: qe::ISVSVN,
    };
    let request = KeyRequest {
        keyname: key_name::REPORT.into(),
        keyid: report.keyid,
        ..KeyRequest::new_zeroed()
    };
    let key = platform.egetkey(&enclave, target.attributes, &request).expect("a REPORT key");
    let mut cmac = Cmac::<Aes128>::new(&key.into());
    cmac.update(&report.as_bytes()[..Report::MACED]);
    report.mac = cmac.finalize().into_bytes().into();
    report
}

/// The quote of a REPORT.
pub(crate) fn quote(
    platform: &PlatformFuses,
    authority: &Authority,
    report: &[u8],
) -> Result<Vec<u8>, QuoteError> {
    Quoter::new(platform, authority).expect("a certificate").quote(report)
}

/// A platform that is its own manufacturer.
pub(crate) struct Site {
    pub(crate) platform: PlatformFuses,
    pub(crate) authority: Authority,
}

impl Site {
    pub(crate) fn new(number: u8) -> Self {
        Self::with_names(number, Names::Cloister)
    }

    pub(crate) fn with_names(number: u8, names: Names) -> Self {
        let platform = platform(number);
        let authority = Authority::of_platform(&platform, names).expect("an authority");
        Self { platform, authority }
    }

    pub(crate) fn quote_of(&self, change: impl FnOnce(&mut Report)) -> Vec<u8> {
        let mut report = unsigned_report(&self.platform);
        change(&mut report);
        let report = maced(&self.platform, report);
        quote(&self.platform, &self.authority, report.as_bytes()).expect("a quote")
    }

    pub(crate) fn quote(&self) -> Vec<u8> {
        self.quote_of(|_| {})
    }

    /// What was issued a day ago for 30 days.
    pub(crate) fn collateral(&self, status: TcbStatus, revoked: &[Revocation]) -> Collateral {
        let term = Term { issued: now() - DAY, length: 30 * DAY };
        let covered = Covered { platform: &self.platform, revoked };
        self.authority.collateral(&[covered], &term, status).expect("collateral")
    }

    pub(crate) fn root(&self) -> String {
        self.authority.root_pem().expect("a root")
    }

    /// The verdict on `quote` now, with nothing against the platform.
    pub(crate) fn judge(&self, quote: &[u8], policy: &Policy) -> Result<Verdict, VerifyError> {
        let collateral = self.collateral(TcbStatus::UpToDate, &[]);
        verify(quote, self.root().as_bytes(), &collateral, now(), policy)
    }
}

/// What was said against a quote.
pub(crate) fn rejection(verdict: Result<Verdict, VerifyError>) -> String {
    match verdict {
        Err(VerifyError::Rejected(why)) => why,
        other => panic!("{other:?}"),
    }
}
