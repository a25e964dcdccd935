//! Certificates: the root, the authorities under it, and a platform's PCK.

use p256::ecdsa::{DerSignature, SigningKey};
use sha2::{Digest as _, Sha256};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder as _, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::{GeneralizedTime, Ia5String};
use x509_cert::der::{self, DateTime, Encode as _, EncodePem as _, pem::LineEnding};
use x509_cert::ext::pkix::crl::CrlDistributionPoints;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension as _};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, SubjectPublicKeyInfo};

use super::PkiError;
use super::names::{Names, Subject};

/// Where CRLs would be: verifiers ask for the extension. The domain is one that never exists
/// (RFC 6761, 6.4).
const CRL_URLS: &str = "https://cloister.invalid/sgx/certification/v4";

/// A platform's certified key.
#[derive(Debug)]
pub struct PckCertificate {
    pub(crate) key: SigningKey,
    pub(super) certificate: Certificate,
    /// The certificate, that of its issuer and the root, in PEM.
    pub(crate) chain: String,
}

impl PckCertificate {
    /// The certificate, that of its issuer and the root, in PEM: certification data of type 5.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }
}

/// A key that signs and the certificate that says so.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) key: SigningKey,
    pub(super) certificate: Certificate,
}

impl Issuer {
    pub(super) fn root(key: SigningKey, names: Names) -> Result<Self, PkiError> {
        let name = names.of(Subject::Root)?;
        let profile = Profile {
            issuer: name.clone(),
            subject: name,
            // Over the PCK CA, over which there is none.
            authority: Some(1),
            crl: "rootcacrl",
            sgx: None,
        };
        let certificate = certify(&key, &key, profile)?;
        Ok(Self { key, certificate })
    }

    /// Certifies `key` for a subject directly under this root.
    pub(super) fn subordinate(
        &self,
        key: SigningKey,
        names: Names,
        subject: Subject,
    ) -> Result<Self, PkiError> {
        let profile = Profile {
            issuer: names.of(Subject::Root)?,
            subject: names.of(subject)?,
            authority: (subject == Subject::PckCa).then_some(0),
            crl: "rootcacrl",
            sgx: None,
        };
        let certificate = certify(&self.key, &key, profile)?;
        Ok(Self { key, certificate })
    }

    /// Certifies a platform's `key` under this PCK CA, with the SGX extension.
    pub(super) fn certify_pck(
        &self,
        key: &SigningKey,
        names: Names,
        sgx: Extension,
    ) -> Result<Certificate, PkiError> {
        let profile = Profile {
            issuer: names.of(Subject::PckCa)?,
            subject: names.of(Subject::Pck)?,
            authority: None,
            crl: "pckcrl?ca=platform&encoding=der",
            sgx: Some(sgx),
        };
        certify(&self.key, key, profile)
    }
}

/// What makes one certificate differ from another besides the keys.
struct Profile {
    issuer: Name,
    subject: Name,
    /// The number of authorities under it at most, if it is one.
    authority: Option<u8>,
    /// The name of the CRL that would list it.
    crl: &'static str,
    sgx: Option<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        spk: SubjectPublicKeyInfoRef<'_>,
        issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let usage = match self.authority {
            Some(_) => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            None => KeyUsages::DigitalSignature | KeyUsages::NonRepudiation,
        };
        let basic =
            BasicConstraints { ca: self.authority.is_some(), path_len_constraint: self.authority };
        let url = Ia5String::new(&format!("{CRL_URLS}/{}", self.crl))?;
        let crls = CrlDistributionPoints(vec![DistributionPoint {
            distribution_point: Some(DistributionPointName::FullName(vec![
                GeneralName::UniformResourceIdentifier(url),
            ])),
            reasons: None,
            crl_issuer: None,
        }]);
        let subject = tbs.subject();
        let issuer_id = SubjectKeyIdentifier::try_from(issuer_spk)?.0;
        let authority =
            AuthorityKeyIdentifier { key_identifier: Some(issuer_id), ..Default::default() };
        let mut extensions = vec![
            authority.to_extension(subject, &[])?,
            crls.to_extension(subject, &[])?,
            SubjectKeyIdentifier::try_from(spk)?.to_extension(subject, &[])?,
            KeyUsage(usage).to_extension(subject, &[])?,
            basic.to_extension(subject, &[])?,
        ];
        extensions.extend(self.sgx.clone());
        Ok(extensions)
    }
}

/// From 2020 to the end of 2049, the last year of certificates in UTCTime (RFC 5280, 4.1.2.5).
fn validity() -> der::Result<Validity> {
    let time = |date: DateTime| Time::GeneralTime(GeneralizedTime::from_date_time(date));
    Ok(Validity::new(
        time(DateTime::new(2020, 1, 1, 0, 0, 0)?),
        time(DateTime::new(2049, 12, 31, 23, 59, 59)?),
    ))
}

/// Positive and of 20 bytes (RFC 5280, 4.1.2.2), and another one for whatever differs.
fn serial(profile: &Profile, public: &SubjectPublicKeyInfo) -> der::Result<SerialNumber> {
    let mut digest = Sha256::new()
        .chain_update(profile.issuer.to_der()?)
        .chain_update(profile.subject.to_der()?)
        .chain_update(public.to_der()?);
    if let Some(sgx) = &profile.sgx {
        digest.update(sgx.to_der()?);
    }
    let mut serial: [u8; 32] = digest.finalize().into();
    serial[0] = serial[0] & 0x3f | 0x40;
    SerialNumber::new(&serial[..20])
}

fn certify(
    issuer: &SigningKey,
    key: &SigningKey,
    profile: Profile,
) -> Result<Certificate, PkiError> {
    let public =
        SubjectPublicKeyInfo::from_key(key.verifying_key()).map_err(builder::Error::from)?;
    let serial = serial(&profile, &public)?;
    let builder = CertificateBuilder::new(profile, serial, validity()?, public)?;
    Ok(builder.build::<_, DerSignature>(issuer)?)
}

/// Certificates in PEM, one after the other.
pub(super) fn chain<'a>(
    certificates: impl IntoIterator<Item = &'a Certificate>,
) -> Result<String, PkiError> {
    let pem = certificates.into_iter().map(|one| one.to_pem(LineEnding::LF));
    Ok(pem.collect::<Result<_, _>>()?)
}
