//! Certificate revocation lists (version 2, RFC 5280, section 5).

use std::time::SystemTime;

use p256::ecdsa::DerSignature;
use x509_cert::builder::{Builder as _, CrlBuilder};
use x509_cert::crl::RevokedCert;
use x509_cert::der::asn1::{GeneralizedTime, Uint, UtcTime};
use x509_cert::der::{self, DateTime, Encode as _};
use x509_cert::ext::pkix::CrlNumber;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use super::certificate::Issuer;
use super::{PkiError, Term};

/// A certificate that can be revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revoked {
    /// The platform's PCK certificates, of every PCESVN.
    Pck,
    /// The authority that certifies platforms.
    PckCa,
    /// The signer of TCB info and QE identity.
    TcbSigning,
}

/// Which certificate has been revoked, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// The certificate.
    pub what: Revoked,
    /// Since when.
    pub since: SystemTime,
}

impl Issuer {
    /// The list, in DER, of which of this issuer's certificates have been revoked since when. It is
    /// numbered by the second of its issue, so that a later one has a higher number.
    pub(super) fn crl(
        &self,
        term: &Term,
        revoked: Vec<(SerialNumber, SystemTime)>,
    ) -> Result<Vec<u8>, PkiError> {
        let issued = term.issued()?;
        let number = issued.unix_duration().as_secs().to_be_bytes();
        let number = CrlNumber(Uint::new(&number)?);
        let mut crl = CrlBuilder::new_with_this_update(&self.certificate, number, time(issued)?)?
            .with_next_update(Some(time(term.next_update()?)?));
        let mut entries = Vec::with_capacity(revoked.len());
        for (serial_number, since) in revoked {
            entries.push(RevokedCert {
                serial_number,
                revocation_date: time(DateTime::from_system_time(since)?)?,
                crl_entry_extensions: None,
            });
        }
        // An empty list is left out (RFC 5280, 5.1.2.6).
        if !entries.is_empty() {
            crl = crl.with_certificates(entries.into_iter());
        }
        Ok(crl.build::<_, DerSignature>(&self.key)?.to_der()?)
    }
}

/// UTCTime through 2049, and GeneralizedTime from then on (RFC 5280, 5.1.2.4).
fn time(date: DateTime) -> der::Result<Time> {
    Ok(if date.year() < 2050 {
        Time::UtcTime(UtcTime::from_date_time(date)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_date_time(date))
    })
}
