//! What the bytes of fuzz targets decide.

#[path = "../quotes/platform.rs"]
#[expect(dead_code, reason = "the tests of quotes use more of it")]
mod platform;

use std::sync::LazyLock;

use cloister_attest::pki::{Collateral, TcbStatus};
use cloister_attest::quote::{self, QuoteError};
use cloister_attest::verify::{Policy, Verdict, verify};
use cloister_sgx::layout::Report;
use zerocopy::IntoBytes as _;

use platform::{Site, maced, now, unsigned_report};

/// Where the signed parts of a quote end: see the tests of verdicts.
const SIGNED: usize = 432 + 4 + 64 + 64 + 384 + 64 + 2 + 32;

struct Genuine {
    site: Site,
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
    Genuine {
        root: site.root(),
        collateral: site.collateral(TcbStatus::UpToDate, &[]),
        verdict: site.judge(&quote, &Policy::default()).expect("it is accepted"),
        report,
        quote,
        site,
    }
});

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

    let quoted = quote::quote(&genuine.site.platform, &genuine.site.authority, &report);

    match quoted {
        Ok(_) => assert_eq!(report, genuine.report.as_bytes()),
        Err(QuoteError::Length(length)) => assert_ne!(length, size_of::<Report>()),
        Err(error) => {
            assert!(matches!(error, QuoteError::Mac), "{error}");
            assert_ne!(report, genuine.report.as_bytes());
        }
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
