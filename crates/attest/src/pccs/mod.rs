//! What a provisioning certificate caching service (PCCS) answers about platforms that are certified here: the
//! part of its interface, version 4, that quoting and verifying ask.
//!
//! Source: the PCCS of Intel's SGXDataCenterAttestationPrimitives (QuoteGeneration/pccs), and "Intel SGX PCCS
//! Design Guide".

mod platform;

use crate::hex;
use crate::pki::{Collateral, FMSPC};

pub use platform::{PlatformError, PublishedPlatform};

/// Under which every path is.
const BASE: &str = "/sgx/certification/v4/";
/// Whose CA the one under the root is, by its name.
const CA: &str = "platform";
/// Values of `update` that there are: which data are asked for, all of which are the same here.
const UPDATES: [&str; 2] = ["standard", "early"];
/// Hexadecimal digits of `encrypted_ppid`, which nobody can decrypt here.
const ENCRYPTED_PPID: usize = 768;
/// Hexadecimal digits of `qeid` at most.
const QE_ID: usize = 260;

/// An answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The media type of the body.
    pub content_type: &'static str,
    /// Headers besides.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request makes no sense: status 400.
    Invalid,
    /// There is nothing of the kind: status 404.
    NotFound,
}

impl Refusal {
    /// What the service says.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid request parameters.",
            Self::NotFound => "No cache data for this platform.",
        }
    }
}

/// Why platforms cannot be served together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PccsError {
    /// There is none.
    #[error("there is no platform")]
    Empty,
    /// Platforms whose collateral is not the same.
    #[error("the platforms were not certified together, by one authority")]
    Apart,
}

/// The service.
#[derive(Debug)]
pub struct Pccs {
    platforms: Vec<PublishedPlatform>,
}

impl Pccs {
    /// A service for these platforms, which were certified together: they have one root, one list of
    /// revocations and one TCB info.
    ///
    /// # Errors
    /// [`PccsError`].
    pub fn new(platforms: Vec<PublishedPlatform>) -> Result<Self, PccsError> {
        let [first, others @ ..] = &platforms[..] else { return Err(PccsError::Empty) };
        if others.iter().any(|other| other.collateral() != first.collateral()) {
            return Err(PccsError::Apart);
        }
        Ok(Self { platforms })
    }

    /// The answer to GET of a target: a path, and a query after `?`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn answer(&self, target: &str) -> Result<Answer, Refusal> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::new(query)?;
        match path.strip_prefix(BASE).ok_or(Refusal::NotFound)? {
            "pckcert" => self.pck_certificate(&query),
            "pckcrl" => self.pck_crl(&query),
            "tcb" => self.tcb_info(&query),
            "qe/identity" => self.qe_identity(&query),
            "rootcacrl" => Ok(Answer {
                content_type: "application/pkix-crl",
                headers: Vec::new(),
                body: hex::upper(&self.collateral().root_crl).to_lowercase().into(),
            }),
            _ => Err(Refusal::NotFound),
        }
    }

    fn collateral(&self) -> &Collateral {
        self.platforms[0].collateral()
    }

    fn pck_certificate(&self, query: &Query<'_>) -> Result<Answer, Refusal> {
        let qe_id = query.get("qeid").ok_or(Refusal::Invalid)?;
        let cpusvn = query.bytes("cpusvn")?;
        let pcesvn = u16::from_le_bytes(query.bytes("pcesvn")?);
        let _pceid: [u8; 2] = query.bytes("pceid")?;
        let encrypted_ppid = query.get("encrypted_ppid");
        let is_id = qe_id.len() <= QE_ID && hex::decode(qe_id).is_some();
        if !is_id || encrypted_ppid.is_some_and(|text| text.len() != ENCRYPTED_PPID) {
            return Err(Refusal::Invalid);
        }
        let known = |platform: &&PublishedPlatform| platform.has_qe_id(qe_id);
        let platform = match &self.platforms[..] {
            // Whatever quoting enclave asks.
            [only] => only,
            several => several.iter().find(known).ok_or(Refusal::NotFound)?,
        };
        let pck = platform.pck(&cpusvn, pcesvn).ok_or(Refusal::NotFound)?;
        Ok(Answer {
            content_type: "application/x-pem-file",
            headers: vec![
                ("SGX-TCBm", hex::upper(&[&pck.cpusvn[..], &pck.pcesvn.to_le_bytes()].concat())),
                ("SGX-FMSPC", hex::upper(&FMSPC)),
                ("SGX-PCK-Certificate-CA-Type", CA.to_owned()),
                ("SGX-PCK-Certificate-Issuer-Chain", percent_encoded(&pck.issuer_chain)),
            ],
            body: pck.certificate.clone().into(),
        })
    }

    fn pck_crl(&self, query: &Query<'_>) -> Result<Answer, Refusal> {
        match query.get("ca") {
            Some(ca) if ca.eq_ignore_ascii_case(CA) => {}
            Some(ca) if ca.eq_ignore_ascii_case("processor") => return Err(Refusal::NotFound),
            _ => return Err(Refusal::Invalid),
        }
        let is_der = query.get("encoding").is_some_and(|text| text.eq_ignore_ascii_case("der"));
        let Collateral { pck_crl, pck_crl_issuer_chain, .. } = self.collateral();
        Ok(Answer {
            // Intel's says so of its hexadecimal text too.
            content_type: if is_der { "application/pkix-crl" } else { "application/x-pem-file" },
            headers: vec![("SGX-PCK-CRL-Issuer-Chain", percent_encoded(pck_crl_issuer_chain))],
            body: if is_der { pck_crl.clone() } else { hex::upper(pck_crl).to_lowercase().into() },
        })
    }

    fn tcb_info(&self, query: &Query<'_>) -> Result<Answer, Refusal> {
        let fmspc: [u8; 6] = query.bytes("fmspc")?;
        query.update()?;
        if fmspc != FMSPC {
            return Err(Refusal::NotFound);
        }
        Ok(self.signed("TCB-Info-Issuer-Chain", &self.collateral().tcb_info))
    }

    fn qe_identity(&self, query: &Query<'_>) -> Result<Answer, Refusal> {
        query.update()?;
        Ok(self.signed("SGX-Enclave-Identity-Issuer-Chain", &self.collateral().qe_identity))
    }

    fn signed(&self, header: &'static str, json: &str) -> Answer {
        Answer {
            content_type: "application/json",
            headers: vec![(header, percent_encoded(&self.collateral().tcb_issuer_chain))],
            body: json.into(),
        }
    }
}

/// What is asked after `?`. No value that has a meaning here needs to be percent-encoded.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Each name has one value.
    fn new(text: &'a str) -> Result<Self, Refusal> {
        let names = || text.split('&').map(|pair| pair.split_once('=').map_or(pair, |pair| pair.0));
        let twice = names().enumerate().any(|(at, name)| names().take(at).any(|one| one == name));
        if twice { Err(Refusal::Invalid) } else { Ok(Self(text)) }
    }

    /// The value of this name.
    fn get(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|&(known, _)| known == name).map(|(_, value)| value)
    }

    /// The bytes of a value in hexadecimal.
    fn bytes<const N: usize>(&self, name: &str) -> Result<[u8; N], Refusal> {
        let bytes = self.get(name).and_then(hex::decode).ok_or(Refusal::Invalid)?;
        bytes.try_into().map_err(|_| Refusal::Invalid)
    }

    fn update(&self) -> Result<(), Refusal> {
        let update = self.get("update").unwrap_or(UPDATES[0]);
        let known = UPDATES.iter().any(|known| update.eq_ignore_ascii_case(known));
        known.then_some(()).ok_or(Refusal::Invalid)
    }
}

/// Text as a header can have it.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
