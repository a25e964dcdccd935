//! What verifiers ask for besides the quote, as files and in one piece.

use std::ops::Range;
use std::time::SystemTime;

use dcap_qvl::QuoteCollateralV3;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use x509_cert::der::DateTime;

use crate::hex;

/// The names of the files of [`Collateral`], in the order of its fields.
pub const FILES: [&str; 6] = [
    "root-ca.crl",
    "pck-ca.crl",
    "pck-ca-chain.pem",
    "tcb-info.json",
    "qe-identity.json",
    "tcb-signing-chain.pem",
];

/// What a provisioning certification service answers with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collateral {
    /// The root's CRL, in DER.
    pub root_crl: Vec<u8>,
    /// The CRL of PCK certificates, in DER.
    pub pck_crl: Vec<u8>,
    /// The certificates of who signed that, in PEM, from the signer to the root.
    pub pck_crl_issuer_chain: String,
    /// TCB info with its signature, in JSON.
    pub tcb_info: String,
    /// QE identity with its signature, in JSON.
    pub qe_identity: String,
    /// The certificates of who signed both, in PEM, from the signer to the root.
    pub tcb_issuer_chain: String,
}

/// Why files are not collateral.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CollateralError {
    /// A file that is to be text is not.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    /// A file that is to be signed JSON is not.
    #[error("{0} is not the JSON of a {1} and its signature")]
    NotSigned(&'static str, &'static str),
}

#[derive(Deserialize)]
struct SignedTcbInfo<'a> {
    #[serde(borrow, rename = "tcbInfo")]
    body: &'a RawValue,
    signature: &'a str,
}

#[derive(Deserialize)]
struct SignedQeIdentity<'a> {
    #[serde(borrow, rename = "enclaveIdentity")]
    body: &'a RawValue,
    signature: &'a str,
}

/// What TCB info says of its time.
#[derive(Deserialize)]
struct Dates<'a> {
    #[serde(rename = "issueDate")]
    issued: &'a str,
    #[serde(rename = "nextUpdate")]
    next: &'a str,
}

impl Collateral {
    /// From when to when the TCB info holds, as it says.
    #[must_use]
    pub fn term(&self) -> Option<Range<SystemTime>> {
        let signed: SignedTcbInfo<'_> = serde_json::from_str(&self.tcb_info).ok()?;
        let dates: Dates<'_> = serde_json::from_str(signed.body.get()).ok()?;
        let time = |date: &str| Some(date.parse::<DateTime>().ok()?.to_system_time());
        Some(time(dates.issued)?..time(dates.next)?)
    }

    /// The contents of [`FILES`], in their order.
    #[must_use]
    pub fn to_files(&self) -> [&[u8]; 6] {
        [
            &self.root_crl,
            &self.pck_crl,
            self.pck_crl_issuer_chain.as_bytes(),
            self.tcb_info.as_bytes(),
            self.qe_identity.as_bytes(),
            self.tcb_issuer_chain.as_bytes(),
        ]
    }

    /// The collateral of the contents of [`FILES`], in their order. Only whether text is text is
    /// looked at.
    ///
    /// # Errors
    /// [`CollateralError::NotText`].
    pub fn from_files(files: [Vec<u8>; 6]) -> Result<Self, CollateralError> {
        let [root_crl, pck_crl, pck_chain, tcb_info, qe_identity, tcb_chain] = files;
        let text = |index: usize, bytes| {
            String::from_utf8(bytes).map_err(|_| CollateralError::NotText(FILES[index]))
        };
        Ok(Self {
            root_crl,
            pck_crl,
            pck_crl_issuer_chain: text(2, pck_chain)?,
            tcb_info: text(3, tcb_info)?,
            qe_identity: text(4, qe_identity)?,
            tcb_issuer_chain: text(5, tcb_chain)?,
        })
    }

    /// The same as dcap-qvl takes it: the signed text without its envelope.
    ///
    /// # Errors
    /// [`CollateralError::NotSigned`].
    pub fn to_qvl(&self) -> Result<QuoteCollateralV3, CollateralError> {
        let not_tcb_info = || CollateralError::NotSigned(FILES[3], "TCB info");
        let not_identity = || CollateralError::NotSigned(FILES[4], "QE identity");
        let tcb_info: SignedTcbInfo<'_> =
            serde_json::from_str(&self.tcb_info).map_err(|_| not_tcb_info())?;
        let identity: SignedQeIdentity<'_> =
            serde_json::from_str(&self.qe_identity).map_err(|_| not_identity())?;
        Ok(QuoteCollateralV3 {
            pck_crl_issuer_chain: self.pck_crl_issuer_chain.clone(),
            root_ca_crl: self.root_crl.clone(),
            pck_crl: self.pck_crl.clone(),
            tcb_info_issuer_chain: self.tcb_issuer_chain.clone(),
            tcb_info: tcb_info.body.get().to_owned(),
            tcb_info_signature: hex::decode(tcb_info.signature).ok_or_else(not_tcb_info)?,
            qe_identity_issuer_chain: self.tcb_issuer_chain.clone(),
            qe_identity: identity.body.get().to_owned(),
            qe_identity_signature: hex::decode(identity.signature).ok_or_else(not_identity)?,
            pck_certificate_chain: None,
        })
    }
}
