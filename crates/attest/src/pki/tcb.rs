//! TCB info (V3) and QE identity (V2): JSON that the TCB signer signs as it lies there.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde::Serialize;
use thiserror::Error;

use super::{FMSPC, PkiError, Term};
use crate::hex;
use crate::pce;
use crate::quoting_enclave as qe;

/// When the TCB levels became what they are: a date of no meaning, but fixed.
const TCB_DATE: &str = "2026-01-01T00:00:00Z";
/// tcbEvaluationDataNumber: raised with what is known of TCBs.
const EVALUATION: u32 = 1;

/// What TCB info says of a platform's level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum TcbStatus {
    /// Nothing is known against it.
    #[default]
    UpToDate,
    /// Software must harden itself.
    SWHardeningNeeded,
    /// The platform must be configured.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSWHardeningNeeded,
    /// There is a newer level.
    OutOfDate,
    /// There is a newer level, and the platform must be configured.
    OutOfDateConfigurationNeeded,
    /// Its keys are not to be trusted.
    Revoked,
}

/// A status that there is not.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("there is no TCB status {0:?}: the statuses are {list}", list = TcbStatus::list())]
pub struct UnknownTcbStatus(String);

impl TcbStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::UpToDate,
        Self::SWHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSWHardeningNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
        Self::Revoked,
    ];

    fn list() -> String {
        Self::ALL.map(|status| status.to_string()).join(", ")
    }
}

/// As JSON has it.
impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for TcbStatus {
    type Err = UnknownTcbStatus;

    fn from_str(text: &str) -> Result<Self, UnknownTcbStatus> {
        let mut all = Self::ALL.into_iter();
        all.find(|status| status.to_string() == text).ok_or_else(|| UnknownTcbStatus(text.into()))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TcbInfo {
    id: &'static str,
    version: u8,
    issue_date: String,
    next_update: String,
    fmspc: String,
    pce_id: String,
    tcb_type: u8,
    tcb_evaluation_data_number: u32,
    tcb_levels: Vec<Level<Tcb>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QeIdentity {
    id: &'static str,
    version: u8,
    issue_date: String,
    next_update: String,
    tcb_evaluation_data_number: u32,
    miscselect: String,
    miscselect_mask: String,
    attributes: String,
    attributes_mask: String,
    mrsigner: String,
    isvprodid: u16,
    tcb_levels: [Level<QeTcb>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Level<T> {
    tcb: T,
    tcb_date: &'static str,
    tcb_status: TcbStatus,
}

#[derive(Serialize)]
struct Tcb {
    sgxtcbcomponents: [Component; 16],
    pcesvn: u16,
}

#[derive(Serialize)]
struct Component {
    svn: u8,
}

#[derive(Serialize)]
struct QeTcb {
    isvsvn: u16,
}

/// The signed TCB info of platforms of these CPUSVNs: `status` with the newest PCE, and out of date
/// below.
pub(super) fn tcb_info(
    signer: &SigningKey,
    cpusvns: impl Iterator<Item = [u8; 16]>,
    term: &Term,
    status: TcbStatus,
) -> Result<String, PkiError> {
    let level = |cpusvn: [u8; 16], pcesvn, tcb_status| Level {
        tcb: Tcb { sgxtcbcomponents: cpusvn.map(|svn| Component { svn }), pcesvn },
        tcb_date: TCB_DATE,
        tcb_status,
    };
    // A verifier takes the first that a platform is up to.
    let known: BTreeSet<[u8; 16]> = cpusvns.collect();
    let mut tcb_levels: Vec<_> =
        known.into_iter().rev().map(|cpusvn| level(cpusvn, pce::ISVSVN, status)).collect();
    tcb_levels.push(level([0; 16], 0, TcbStatus::OutOfDate));
    let info = TcbInfo {
        id: "SGX",
        version: 3,
        issue_date: term.issued()?.to_string(),
        next_update: term.next_update()?.to_string(),
        fmspc: hex::upper(&FMSPC),
        pce_id: hex::upper(&pce::PCEID),
        // CPUSVN's bytes are the components.
        tcb_type: 0,
        tcb_evaluation_data_number: EVALUATION,
        tcb_levels,
    };
    Ok(sign(signer, "tcbInfo", &info))
}

/// The signed identity of the quoting enclave of [`crate::quoting_enclave`].
pub(super) fn qe_identity(signer: &SigningKey, term: &Term) -> Result<String, PkiError> {
    let identity = QeIdentity {
        id: "QE",
        version: 2,
        issue_date: term.issued()?.to_string(),
        next_update: term.next_update()?.to_string(),
        tcb_evaluation_data_number: EVALUATION,
        miscselect: "00000000".into(),
        miscselect_mask: "FFFFFFFF".into(),
        attributes: hex::upper(&[qe::ATTRIBUTES.bits().to_le_bytes(), [0; 8]].concat()),
        // XFRM is its own affair, as it is with Intel's.
        attributes_mask: hex::upper(&[[0xff; 8], [0; 8]].concat()),
        mrsigner: hex::upper(&qe::mrsigner()),
        isvprodid: qe::ISVPRODID,
        tcb_levels: [Level {
            tcb: QeTcb { isvsvn: qe::ISVSVN },
            tcb_date: TCB_DATE,
            tcb_status: TcbStatus::UpToDate,
        }],
    };
    Ok(sign(signer, "enclaveIdentity", &identity))
}

/// `{"name":body,"signature":".."}`: r and s over the text of `body`.
fn sign(signer: &SigningKey, name: &str, body: &impl Serialize) -> String {
    let body = serde_json::to_string(body).expect("structs of text and numbers are JSON");
    let signature: Signature = signer.sign(body.as_bytes());
    format!(r#"{{"{name}":{body},"signature":"{}"}}"#, hex::upper(&signature.to_bytes()))
}
