//! ECDSA quotes, version 3 (Intel SGX ECDSA QuoteGenReference, appendix A).

use cloister_sgx::PlatformFuses;
use cloister_sgx::layout::Report;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::pce::{self, p256_key};
use crate::pki::{Authority, PckCertificate, PkiError};
use crate::quoting_enclave as qe;

/// The format's version.
const VERSION: u16 = 3;
/// ECDSA-256 with curve P-256.
const KEY_TYPE: u16 = 2;
/// QE vendor ID of the format: Intel's, since the quote is one of Intel's format.
const VENDOR: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// Concatenated PCK certificate chain, in PEM.
const PCK_CHAIN: u16 = 5;

/// Why there is no quote of a REPORT.
#[derive(Debug, Error)]
pub enum QuoteError {
    /// Not as long as a REPORT.
    #[error("it has {0} bytes, and a REPORT has {size}", size = size_of::<Report>())]
    Length(usize),
    /// The MAC is not that of a REPORT for the quoting enclave, made on this platform.
    #[error(
        "its MAC is not of this platform for the quoting enclave: make the REPORT with the platform's \
         qe-target-info, on a machine of this platform"
    )]
    Mac,
}

/// What makes quotes of the REPORTs of one platform.
#[derive(Debug)]
pub struct Quoter {
    platform: PlatformFuses,
    /// The attestation key.
    key: SigningKey,
    pck: PckCertificate,
}

impl Quoter {
    /// For the REPORTs that enclaves on `platform` make for the [quoting enclave](qe::target_info), certified by
    /// `authority`.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn new(platform: &PlatformFuses, authority: &Authority) -> Result<Self, PkiError> {
        let pck = authority.pck_certificate(platform, pce::ISVSVN)?;
        let key = p256_key(&platform.manufacturer_key("attestation key"));
        Ok(Self { platform: platform.clone(), key, pck })
    }

    /// The platform.
    pub(crate) fn platform(&self) -> &PlatformFuses {
        &self.platform
    }

    /// The quote of a REPORT. The same REPORT always gives the same quote.
    ///
    /// # Errors
    /// [`QuoteError::Length`]; a REPORT of another platform, or for another enclave, is
    /// [`QuoteError::Mac`].
    pub fn quote(&self, report: &[u8]) -> Result<Vec<u8>, QuoteError> {
        let report =
            Report::read_from_bytes(report).map_err(|_| QuoteError::Length(report.len()))?;
        if !self.platform.is_genuine(&report, &qe::target_info()) {
            return Err(QuoteError::Mac);
        }
        Ok(self.sign(&report))
    }

    /// Bytes of a quote, which all have the same number.
    #[must_use]
    pub fn size(&self) -> usize {
        self.sign(&Report::new_zeroed()).len()
    }

    /// The attestation key's name: the digest of it and of what goes with it, which the quoting enclave's REPORT
    /// has.
    pub(crate) fn key_id(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.public_key())
            .chain_update(authentication())
            .finalize()
            .into()
    }

    /// The attestation key's public half, as quotes have it.
    fn public_key(&self) -> [u8; 64] {
        let point = self.key.verifying_key().to_sec1_point(false);
        // Without the tag of SEC 1.
        core::array::from_fn(|at| point.as_bytes()[1 + at])
    }

    fn sign(&self, report: &Report) -> Vec<u8> {
        let mut quote = Vec::new();
        quote.extend(VERSION.to_le_bytes());
        quote.extend(KEY_TYPE.to_le_bytes());
        // Reserved, and the TEE type of SGX in later versions.
        quote.extend([0; 4]);
        quote.extend(qe::ISVSVN.to_le_bytes());
        quote.extend(pce::ISVSVN.to_le_bytes());
        quote.extend(VENDOR);
        // User data: an identifier of the quoting enclave on this platform.
        quote.extend(qe::id(&self.platform));
        quote.extend([0; 4]);
        quote.extend(&report.as_bytes()[..Report::MACED]);
        let signature = self.certified_signature(&quote);
        quote.extend(length(&signature));
        quote.extend(signature);
        quote
    }

    /// The signature of a quote's header and report body, and what leads from there to the PCK.
    fn certified_signature(&self, signed: &[u8]) -> Vec<u8> {
        let mut reportdata = [0; 64];
        reportdata[..32].copy_from_slice(&self.key_id());
        let report = qe::report(&self.platform, reportdata);
        let report = &report.as_bytes()[..Report::MACED];
        let chain = self.pck.chain().as_bytes();

        let mut data = Vec::new();
        let signature: Signature = self.key.sign(signed);
        data.extend(signature.to_bytes());
        data.extend(self.public_key());
        data.extend(report);
        let signature: Signature = self.pck.key.sign(report);
        data.extend(signature.to_bytes());
        data.extend(32_u16.to_le_bytes());
        data.extend(authentication());
        data.extend(PCK_CHAIN.to_le_bytes());
        data.extend(length(chain));
        data.extend(chain);
        data
    }
}

/// What the quoting enclave's REPORT names beside the attestation key. As Intel's has it: 0 to 31.
fn authentication() -> [u8; 32] {
    let mut bytes = [0; 32];
    for (value, byte) in (0..).zip(&mut bytes) {
        *byte = value;
    }
    bytes
}

/// The length of what follows it, as quotes have it.
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("three certificates are shorter than 4 GiB").to_le_bytes()
}
