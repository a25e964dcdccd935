//! What is certified and quoted.

use cloister_attest::pce;
use cloister_attest::pki::{FMSPC, Names};
use cloister_attest::quote::QuoteError;
use cloister_sgx::{AttributeFlags, Attributes};
use dcap_qvl::intel::parse_pck_extension_from_pem;
use zerocopy::IntoBytes as _;

use crate::platform::{Site, maced, platform, quote, unsigned_report};

#[test]
fn two_machines_of_one_platform_have_one_pck_and_another_platform_another() {
    let chain = |number| {
        let site = Site::new(number);
        let pck = site.authority.pck_certificate(&site.platform, pce::ISVSVN);
        pck.expect("a certificate").chain().to_owned()
    };

    assert_eq!(chain(1), chain(1));
    assert_ne!(chain(1), chain(2));
    assert_eq!(Site::new(1).quote(), Site::new(1).quote());
}

#[test]
fn a_pck_certificate_says_of_which_platform_and_tcb_it_is() {
    let site = Site::new(1);
    let pck = site.authority.pck_certificate(&site.platform, 13).expect("a certificate");

    let extension = parse_pck_extension_from_pem(pck.chain().as_bytes()).expect("the extension");

    assert_eq!(extension.ppid, pce::ppid(&site.platform));
    assert_eq!((extension.cpu_svn, extension.pce_svn), (site.platform.cpusvn, 13));
    assert_eq!((extension.fmspc, extension.pce_id.as_slice()), (FMSPC, &pce::PCEID[..]));
    assert_eq!((extension.sgx_type, extension.smt_enabled), (1, Some(false)));
    assert_eq!((extension.dynamic_platform, extension.cached_keys), (Some(false), Some(false)));
    assert!(extension.platform_instance_id.is_some());
}

#[test]
fn names_are_cloisters_unless_intels_are_asked_for() {
    let names = |site: &Site| {
        let verdict = site.judge(&site.quote(), &Default::default());
        verdict.expect("it is accepted").root
    };

    assert_eq!(names(&Site::new(1)), "CN=Cloister development SGX Root CA,O=Cloister development");
    assert_eq!(
        names(&Site::with_names(1, Names::Intel)),
        "CN=Intel SGX Root CA,O=Intel Corporation,L=Santa Clara,ST=CA,C=US"
    );
}

#[test]
fn only_reports_of_the_platform_for_the_quoting_enclave_are_quoted() {
    let site = Site::new(1);
    let report = maced(&site.platform, unsigned_report(&site.platform));
    let of = |bytes: &[u8]| quote(&site.platform, &site.authority, bytes);

    of(report.as_bytes()).expect("a quote");
    for at in 0..report.as_bytes().len() {
        let mut changed = report.clone();
        changed.as_mut_bytes()[at] ^= 0x10;
        assert!(matches!(of(changed.as_bytes()), Err(QuoteError::Mac)), "byte {at}");
    }
    let elsewhere = maced(&platform(2), unsigned_report(&site.platform));
    assert!(matches!(of(elsewhere.as_bytes()), Err(QuoteError::Mac)));
    for wrong in [&report.as_bytes()[1..], &[], &[0; 433]] {
        let length = wrong.len();
        assert!(matches!(of(wrong), Err(QuoteError::Length(found)) if found == length));
    }
}

#[test]
fn a_report_by_an_older_cpusvn_is_not_of_the_platform_as_it_is() {
    let site = Site::new(1);
    let mut older = site.platform.clone();
    older.cpusvn[0] -= 1;
    let report = maced(&older, unsigned_report(&older));

    let refused = quote(&site.platform, &site.authority, report.as_bytes());

    assert!(matches!(refused, Err(QuoteError::Mac)));
}

#[test]
fn a_quote_has_the_report_as_the_enclave_made_it() {
    let site = Site::new(1);
    let quote = site.quote_of(|report| {
        report.attributes = Attributes::new(AttributeFlags::INIT | AttributeFlags::DEBUG, 7);
        report.reportdata = core::array::from_fn(|at| u8::try_from(at).unwrap());
    });
    let mut report = unsigned_report(&site.platform);
    report.attributes = Attributes::new(AttributeFlags::INIT | AttributeFlags::DEBUG, 7);
    report.reportdata = core::array::from_fn(|at| u8::try_from(at).unwrap());

    assert_eq!(&quote[48..432], &report.as_bytes()[..384]);
}
