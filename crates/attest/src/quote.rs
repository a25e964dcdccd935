//! ECDSA quotes, version 3 (Intel SGX ECDSA QuoteGenReference, appendix A).

use cloister_sgx::PlatformFuses;
use cloister_sgx::layout::Report;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::pce::{self, p256_key};
use crate::pki::{Authority, PkiError};
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
    /// The platform's key could not be certified.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The quote of a REPORT that an enclave on `platform` made for the
/// [quoting enclave](qe::target_info), certified by `authority`. The same REPORT always gives the same
/// quote.
///
/// # Errors
/// [`QuoteError`]; a REPORT of another platform, or for another enclave, is [`QuoteError::Mac`].
pub fn quote(
    platform: &PlatformFuses,
    authority: &Authority,
    report: &[u8],
) -> Result<Vec<u8>, QuoteError> {
    let report = Report::read_from_bytes(report).map_err(|_| QuoteError::Length(report.len()))?;
    if !platform.is_genuine(&report, &qe::target_info()) {
        return Err(QuoteError::Mac);
    }
    let pck = authority.pck_certificate(platform, pce::ISVSVN)?;

    let mut quote = Vec::new();
    quote.extend(VERSION.to_le_bytes());
    quote.extend(KEY_TYPE.to_le_bytes());
    // Reserved, and the TEE type of SGX in later versions.
    quote.extend([0; 4]);
    quote.extend(qe::ISVSVN.to_le_bytes());
    quote.extend(pce::ISVSVN.to_le_bytes());
    quote.extend(VENDOR);
    // User data: an identifier of the quoting enclave on this platform.
    quote.extend(platform.manufacturer_key("attestation QE ID"));
    quote.extend([0; 4]);
    quote.extend(&report.as_bytes()[..Report::MACED]);

    let key = p256_key(&platform.manufacturer_key("attestation key"));
    let signature = certified_signature(platform, &key, &pck.key, &quote, pck.chain());
    quote.extend(length(&signature));
    quote.extend(signature);
    Ok(quote)
}

/// The signature of a quote's header and report body by `key`, and what leads from there to the PCK.
fn certified_signature(
    platform: &PlatformFuses,
    key: &SigningKey,
    pck: &SigningKey,
    signed: &[u8],
    chain: &str,
) -> Vec<u8> {
    let public = key.verifying_key().to_sec1_point(false);
    // Without the tag of SEC 1.
    let public = &public.as_bytes()[1..];
    // As Intel's has it: 0 to 31.
    let mut authentication = [0_u8; 32];
    for (value, byte) in (0..).zip(&mut authentication) {
        *byte = value;
    }
    let mut reportdata = [0; 64];
    let digest = Sha256::new().chain_update(public).chain_update(authentication).finalize();
    reportdata[..32].copy_from_slice(&digest);
    let report = qe::report(platform, reportdata);
    let report = &report.as_bytes()[..Report::MACED];

    let mut data = Vec::new();
    let signature: Signature = key.sign(signed);
    data.extend(signature.to_bytes());
    data.extend(public);
    data.extend(report);
    let signature: Signature = pck.sign(report);
    data.extend(signature.to_bytes());
    data.extend(32_u16.to_le_bytes());
    data.extend(authentication);
    data.extend(PCK_CHAIN.to_le_bytes());
    data.extend(length(chain.as_bytes()));
    data.extend(chain.as_bytes());
    data
}

/// The length of what follows it, as quotes have it.
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("three certificates are shorter than 4 GiB").to_le_bytes()
}
