//! A platform as its manufacturer publishes it.

use dcap_qvl::intel::parse_pck_extension_from_pem;
use thiserror::Error;

use crate::hex;
use crate::pki::Collateral;

/// The end of a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----\n";

/// A platform's certificates and collateral.
#[derive(Clone, Debug)]
pub struct PublishedPlatform {
    qe_id: Vec<u8>,
    /// The certificates, the newest first.
    pcks: Vec<Pck>,
    collateral: Collateral,
}

/// A PCK certificate.
#[derive(Clone, Debug)]
pub(super) struct Pck {
    pub(super) cpusvn: [u8; 16],
    pub(super) pcesvn: u16,
    /// In PEM.
    pub(super) certificate: String,
    /// Its issuer and the root, in PEM.
    pub(super) issuer_chain: String,
}

/// Why files do not say what a platform is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PlatformError {
    /// The identifier of the quoting enclave is not hexadecimal.
    #[error("the QE ID is not a line of hexadecimal digits")]
    QeId,
    /// A chain of certificates does not begin with one of a platform.
    #[error("a chain of certificates does not begin with a PCK certificate")]
    Chain,
}

impl PublishedPlatform {
    /// What these files say: the identifier of the quoting enclave in hexadecimal, and chains from PCK
    /// certificates to the root, in PEM.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn new(
        qe_id: &str,
        chains: &[String],
        collateral: Collateral,
    ) -> Result<Self, PlatformError> {
        let qe_id = hex::decode(qe_id.trim_end()).ok_or(PlatformError::QeId)?;
        let pcks: Result<Vec<Pck>, _> = chains.iter().map(|chain| Pck::new(chain)).collect();
        let mut pcks = pcks?;
        pcks.sort_by_key(|pck| std::cmp::Reverse(pck.pcesvn));
        Ok(Self { qe_id, pcks, collateral })
    }

    pub(super) fn collateral(&self) -> &Collateral {
        &self.collateral
    }

    pub(super) fn has_qe_id(&self, digits: &str) -> bool {
        hex::decode(digits).is_some_and(|qe_id| qe_id == self.qe_id)
    }

    /// The newest certificate that a platform with this CPUSVN and PCESVN is up to.
    pub(super) fn pck(&self, cpusvn: &[u8; 16], pcesvn: u16) -> Option<&Pck> {
        self.pcks.iter().find(|pck| {
            let reached = cpusvn.iter().zip(&pck.cpusvn).all(|(own, asked)| own >= asked);
            reached && pcesvn >= pck.pcesvn
        })
    }
}

impl Pck {
    fn new(chain: &str) -> Result<Self, PlatformError> {
        let end = chain.find(END).ok_or(PlatformError::Chain)?;
        let (certificate, issuer_chain) = chain.split_at(end + END.len());
        let extension = parse_pck_extension_from_pem(certificate.as_bytes())
            .map_err(|_| PlatformError::Chain)?;
        Ok(Self {
            cpusvn: extension.cpu_svn,
            pcesvn: extension.pce_svn,
            certificate: certificate.to_owned(),
            issuer_chain: issuer_chain.to_owned(),
        })
    }
}
