//! What a relying party asks of the enclave.

use cloister_attest::pki::TcbStatus;
use cloister_attest::verify::{Policy, PolicyError, VerifyError, verify};
use cloister_sgx::{AttributeFlags, Attributes};
use x509_cert::Certificate;
use x509_cert::der::{DecodePem as _, Encode as _};

use crate::platform::{Site, now};

#[test]
fn an_enclave_for_debugging_is_accepted_only_if_the_policy_says_so() {
    let site = Site::new(1);
    let quote = site.quote_of(|report| {
        let flags = AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
        report.attributes = Attributes::new(flags, 3);
    });

    let strict = site.judge(&quote, &Policy::default());
    let tolerant = site.judge(&quote, &Policy { debug: true, ..Policy::default() });

    assert_eq!(strict, Err(PolicyError::Debug.into()));
    assert!(tolerant.expect("it is allowed").debug);
}

#[test]
fn the_enclave_is_the_one_that_is_asked_for() {
    let site = Site::new(1);
    let quote = site.quote();
    let any = Policy::default;
    let right = Policy {
        mrenclave: Some([0x11; 32]),
        mrsigner: Some([0x22; 32]),
        isvprodid: Some(7),
        min_isvsvn: 3,
        reportdata: Some([0x33; 64]),
        ..any()
    };

    assert!(site.judge(&quote, &right).is_ok());
    for (policy, error) in [
        (Policy { mrenclave: Some([0; 32]), ..any() }, PolicyError::MrEnclave([0x11; 32])),
        (Policy { mrsigner: Some([0; 32]), ..any() }, PolicyError::MrSigner([0x22; 32])),
        (Policy { isvprodid: Some(8), ..any() }, PolicyError::IsvProdId(7)),
        (Policy { min_isvsvn: 4, ..any() }, PolicyError::IsvSvn { found: 3, min: 4 }),
    ] {
        assert_eq!(site.judge(&quote, &policy), Err(error.into()));
    }
}

#[test]
fn a_root_is_a_certificate() {
    let site = Site::new(1);
    let collateral = site.collateral(TcbStatus::UpToDate, &[]);

    for root in ["", "-----BEGIN CERTIFICATE-----", "nonsense"] {
        let verdict =
            verify(&site.quote(), root.as_bytes(), &collateral, now(), &Policy::default());
        assert_eq!(verdict, Err(VerifyError::Root), "{root:?}");
    }
}

#[test]
fn a_root_that_another_issued_is_refused() {
    let site = Site::new(1);
    let collateral = site.collateral(TcbStatus::UpToDate, &[]);
    let root = Certificate::from_pem(site.root()).expect("a root").to_der().expect("DER");
    // The subject comes after the issuer, and the key and all else are the root's.
    let name = b"SGX Root CA";
    let at = root.windows(name.len()).rposition(|part| part == name).expect("the subject");
    let mut other = root.clone();
    other[at] = b'X';

    let verdict = |root: &[u8]| verify(&site.quote(), root, &collateral, now(), &Policy::default());

    assert!(verdict(&root).is_ok());
    let refused = verdict(&other).expect_err("another's");
    assert_eq!(
        refused.to_string(),
        "the root is issued by another, CN=Cloister development SGX Root CA,O=Cloister development"
    );
}
