//! What the bytes of fuzz targets decide.

#[path = "../quotes/platform.rs"]
#[expect(dead_code, reason = "the tests of quotes use more of it")]
mod platform;

use std::sync::LazyLock;

use cloister_attest::aesm::Aesm;
use cloister_attest::pccs::{Pccs, PublishedPlatform};
use cloister_attest::pki::{Collateral, TcbStatus};
use cloister_attest::quote::{QuoteError, Quoter};
use cloister_attest::verify::{Policy, Verdict, verify};
use cloister_attest::{pce, quoting_enclave as qe};
use cloister_sgx::layout::Report;
use zerocopy::IntoBytes as _;

use platform::{Site, maced, now, unsigned_report};

/// Where the signed parts of a quote end: see the tests of verdicts.
const SIGNED: usize = 432 + 4 + 64 + 64 + 384 + 64 + 2 + 32;

struct Genuine {
    quoter: Quoter,
    aesm: Aesm,
    /// GetQuoteEx for the REPORT.
    request: Vec<u8>,
    pccs: Pccs,
    qe_id: String,
    pck_chain: String,
    root: String,
    collateral: Collateral,
    report: Report,
    quote: Vec<u8>,
    verdict: Verdict,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let site = Site::new(1);
    let report = maced(&site.platform, unsigned_report(&site.platform));
    let quote = site.quote();
    let quoter = || Quoter::new(&site.platform, &site.authority).expect("a certificate");
    let collateral = site.collateral(TcbStatus::UpToDate, &[]);
    let pck = site.authority.pck_certificate(&site.platform, pce::ISVSVN).expect("a certificate");
    let pck_chain = pck.chain().to_owned();
    let qe_id: String = qe::id(&site.platform).iter().map(|byte| format!("{byte:02x}")).collect();
    let chains = [pck_chain.clone()];
    let platform = PublishedPlatform::new(&qe_id, &chains, collateral.clone());
    Genuine {
        aesm: Aesm::new(quoter()),
        request: get_quote(report.as_bytes()),
        pccs: Pccs::new(vec![platform.expect("what was published")]).expect("a service"),
        qe_id,
        pck_chain,
        root: site.root(),
        collateral,
        verdict: site.judge(&quote, &Policy::default()).expect("it is accepted"),
        report,
        quote,
        quoter: quoter(),
    }
});

/// A message that has a REPORT quoted by the platform's key.
fn get_quote(report: &[u8]) -> Vec<u8> {
    let mut key_id = [0; 256];
    key_id[4] = 32;
    key_id[6..38].copy_from_slice(&qe::mrsigner());
    key_id[54] = 1;
    key_id[154] = 2;
    // Fields 1, 2 and 4 of message 17: 432 bytes, 256 bytes, 8192.
    let fields = [b"\x0a\xb0\x03", report, b"\x12\x80\x02", &key_id, b"\x20\x80\x40"].concat();
    let length = u16::try_from(fields.len()).expect("some hundred bytes");
    let [low, high] = [(length & 0x7f) | 0x80, length >> 7].map(|half| half.to_le_bytes()[0]);
    [b"\x8a\x01", &[low, high][..], &fields].concat()
}

/// The first byte says whether the rest is a thing or what to change in the genuine one: three bytes
/// a change, where (two bytes, little-endian) and what to flip.
fn decide(data: &[u8], genuine: &[u8]) -> Vec<u8> {
    let Some((&choice, rest)) = data.split_first() else { return Vec::new() };
    if choice & 1 == 0 {
        return rest.to_vec();
    }
    let mut changed = genuine.to_vec();
    for change in rest.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % changed.len();
        changed[at] ^= change[2];
    }
    changed
}

/// A REPORT from anywhere: quoted if and only if it is the genuine one.
pub(crate) fn report(data: &[u8]) {
    let genuine = &*GENUINE;
    let report = decide(data, genuine.report.as_bytes());

    let quoted = genuine.quoter.quote(&report);

    match quoted {
        Ok(_) => assert_eq!(report, genuine.report.as_bytes()),
        Err(QuoteError::Length(length)) => assert_ne!(length, size_of::<Report>()),
        Err(error) => {
            assert!(matches!(error, QuoteError::Mac), "{error}");
            assert_ne!(report, genuine.report.as_bytes());
        }
    }
}

/// A message to the AESM service: what is as long as a quote is the genuine REPORT's.
pub(crate) fn aesm(data: &[u8]) {
    let genuine = &*GENUINE;

    let response = genuine.aesm.answer(&decide(data, &genuine.request));

    let quote = &genuine.quote[..];
    let quotes = || response.windows(quote.len()).any(|part| part == quote);
    assert!(response.len() < quote.len() || quotes(), "another quote");
}

/// A target of a request to the PCCS: an answer has headers that are lines, and a body.
pub(crate) fn pccs(data: &[u8]) {
    const GENUINE_TARGET: &[u8] = b"/sgx/certification/v4/pckcert?qeid=0123456789abcdef\
        &cpusvn=02020200000000000000000000000000&pcesvn=1000&pceid=0000";
    let target = decide(data, GENUINE_TARGET);
    let target = String::from_utf8_lossy(&target);

    if let Ok(answer) = GENUINE.pccs.answer(&target) {
        assert!(!answer.body.is_empty());
        let mut values = answer.headers.iter().map(|(_, value)| value);
        assert!(values.all(|value| value.bytes().all(|byte| byte.is_ascii_graphic())));
    }
}

/// A root, CRLs or a platform's certificate from anywhere: a quote is accepted under them only with the
/// genuine verdict.
pub(crate) fn certificates(data: &[u8]) {
    let genuine = &*GENUINE;
    let Some((&which, data)) = data.split_first() else { return };
    let mut root = genuine.root.clone().into_bytes();
    let mut collateral = genuine.collateral.clone();
    match which % 5 {
        0 => root = decide(data, &root),
        1 => collateral.root_crl = decide(data, &collateral.root_crl),
        2 => collateral.pck_crl = decide(data, &collateral.pck_crl),
        3 => {
            let chain = decide(data, collateral.tcb_issuer_chain.as_bytes());
            collateral.tcb_issuer_chain = String::from_utf8_lossy(&chain).into_owned();
        }
        _ => {
            let chain = decide(data, genuine.pck_chain.as_bytes());
            let chains = [String::from_utf8_lossy(&chain).into_owned()];
            // Whether it is one: nothing of it is trusted.
            let _ = PublishedPlatform::new(&genuine.qe_id, &chains, collateral);
            return;
        }
    }
    match verify(&genuine.quote, &root, &collateral, now(), &Policy::default()) {
        Ok(verdict) => assert_eq!(verdict, genuine.verdict),
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
}

/// A quote from anywhere: accepted only with the genuine one's signed parts, and then it says what that
/// one says.
pub(crate) fn quote(data: &[u8]) {
    let genuine = &*GENUINE;
    let quote = decide(data, &genuine.quote);

    let root = genuine.root.as_bytes();
    match verify(&quote, root, &genuine.collateral, now(), &Policy::default()) {
        Ok(verdict) => {
            assert_eq!(quote[..SIGNED], genuine.quote[..SIGNED]);
            assert_eq!(verdict, genuine.verdict);
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
}
