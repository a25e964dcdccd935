//! The caching service of certificates, as its clients ask it.

use cloister_attest::pccs::{Answer, Pccs, PccsError, PlatformError, PublishedPlatform, Refusal};
use cloister_attest::pki::{Authority, Covered, TcbStatus, Term};
use cloister_attest::quoting_enclave as qe;
use cloister_sgx::PlatformFuses;

use crate::platform::{DAY, Site, now, platform};

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an authority publishes of these platforms.
fn published(authority: &Authority, platforms: &[PlatformFuses]) -> Vec<PublishedPlatform> {
    let covered: Vec<Covered<'_>> =
        platforms.iter().map(|platform| Covered { platform, revoked: &[] }).collect();
    let term = Term { issued: now() - DAY, length: 30 * DAY };
    let collateral = authority.collateral(&covered, &term, TcbStatus::UpToDate).unwrap();
    let one = |platform: &PlatformFuses| {
        let chain = |svn| authority.pck_certificate(platform, svn).unwrap().chain().to_owned();
        let chains = [13, 16, 15].map(chain);
        let id = digits(&qe::id(platform));
        PublishedPlatform::new(&id, &chains, collateral.clone()).expect("it is what was issued")
    };
    platforms.iter().map(one).collect()
}

fn ask(pccs: &Pccs, rest: &str) -> Result<Answer, Refusal> {
    pccs.answer(&format!("/sgx/certification/v4/{rest}"))
}

fn pck_query(id: &str, cpusvn: &[u8], pcesvn: &str) -> String {
    format!("pckcert?qeid={id}&cpusvn={}&pcesvn={pcesvn}&pceid=0000", digits(cpusvn))
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let found = answer.headers.iter().find(|(known, _)| *known == name);
    &found.unwrap_or_else(|| panic!("{name} in {answer:?}")).1
}

#[test]
fn a_platform_gets_the_newest_certificate_that_it_is_up_to() {
    let site = Site::new(1);
    let pccs = Pccs::new(published(&site.authority, std::slice::from_ref(&site.platform))).unwrap();
    let cpusvn = site.platform.cpusvn;
    let chain =
        |svn| site.authority.pck_certificate(&site.platform, svn).unwrap().chain().to_owned();

    for (pcesvn, expected, tcbm) in
        [("1000", 16, "1000"), ("FFFF", 16, "1000"), ("0e00", 13, "0D00")]
    {
        let answer = ask(&pccs, &pck_query("00", &cpusvn, pcesvn)).expect("a certificate");

        let body = String::from_utf8(answer.body.clone()).unwrap();
        assert!(chain(expected).starts_with(&body), "{pcesvn}");
        assert_eq!(body.matches("BEGIN CERTIFICATE").count(), 1);
        let tcbm = format!("{}{tcbm}", digits(&cpusvn).to_uppercase());
        assert_eq!(header(&answer, "SGX-TCBm"), tcbm);
        assert_eq!(header(&answer, "SGX-FMSPC"), "434C4F495354");
        assert_eq!(header(&answer, "SGX-PCK-Certificate-CA-Type"), "platform");
        let issuers = header(&answer, "SGX-PCK-Certificate-Issuer-Chain");
        assert_eq!(issuers.matches("-----BEGIN%20CERTIFICATE-----%0A").count(), 2, "{issuers}");
    }
    let mut older = cpusvn;
    older[1] -= 1;
    assert_eq!(ask(&pccs, &pck_query("00", &older, "1000")), Err(Refusal::NotFound));
    assert_eq!(ask(&pccs, &pck_query("00", &cpusvn, "0c00")), Err(Refusal::NotFound));
}

#[test]
fn several_platforms_are_told_apart_by_their_quoting_enclaves() {
    let authority = Site::new(9).authority;
    let platforms = [platform(1), platform(2)];
    let pccs = Pccs::new(published(&authority, &platforms)).expect("one authority");

    for platform in &platforms {
        for id in [digits(&qe::id(platform)), digits(&qe::id(platform)).to_uppercase()] {
            let answer = ask(&pccs, &pck_query(&id, &platform.cpusvn, "1000")).unwrap();
            let own = authority.pck_certificate(platform, 16).unwrap();
            assert!(own.chain().as_bytes().starts_with(&answer.body));
        }
    }
    let stranger = pck_query("00ff", &platforms[0].cpusvn, "1000");
    assert_eq!(ask(&pccs, &stranger), Err(Refusal::NotFound));
}

#[test]
fn platforms_of_two_authorities_are_not_served_together() {
    let platforms = [1, 2].map(|number| {
        let site = Site::new(number);
        published(&site.authority, &[site.platform]).remove(0)
    });

    assert_eq!(Pccs::new(platforms.into()).unwrap_err(), PccsError::Apart);
    assert_eq!(Pccs::new(Vec::new()).unwrap_err(), PccsError::Empty);
}

#[test]
fn collateral_is_answered_as_it_was_published() {
    let site = Site::new(1);
    let collateral = site.collateral(TcbStatus::UpToDate, &[]);
    let pccs = Pccs::new(published(&site.authority, std::slice::from_ref(&site.platform))).unwrap();
    let body = |rest: &str| ask(&pccs, rest).expect("an answer").body;

    assert_eq!(body("pckcrl?ca=platform&encoding=der"), collateral.pck_crl);
    assert_eq!(body("pckcrl?ca=PLATFORM"), digits(&collateral.pck_crl).into_bytes());
    assert_eq!(body("rootcacrl"), digits(&collateral.root_crl).into_bytes());
    assert_eq!(body("tcb?fmspc=434c4f495354"), collateral.tcb_info.as_bytes());
    assert_eq!(body("tcb?fmspc=434C4F495354&update=early"), collateral.tcb_info.as_bytes());
    let twice = ask(&pccs, "tcb?fmspc=434C4F495354&update=early&fmspc=00");
    assert!(matches!(twice, Err(Refusal::Invalid)), "{twice:?}");
    assert_eq!(body("qe/identity?update=standard"), collateral.qe_identity.as_bytes());
    for (rest, name) in [
        ("pckcrl?ca=platform", "SGX-PCK-CRL-Issuer-Chain"),
        ("tcb?fmspc=434c4f495354", "TCB-Info-Issuer-Chain"),
        ("qe/identity", "SGX-Enclave-Identity-Issuer-Chain"),
    ] {
        let answer = ask(&pccs, rest).unwrap();
        let chain = header(&answer, name);
        assert_eq!(chain.matches("-----BEGIN%20CERTIFICATE-----%0A").count(), 2, "{chain}");
    }
}

#[test]
fn what_makes_no_sense_is_invalid_and_what_is_unknown_not_found() {
    let site = Site::new(1);
    let pccs = Pccs::new(published(&site.authority, std::slice::from_ref(&site.platform))).unwrap();
    let svn = "0".repeat(32);
    let long = "0".repeat(261);

    for (rest, refusal) in [
        ("pckcert", Refusal::Invalid),
        (&format!("pckcert?cpusvn={svn}&pcesvn=1000&pceid=0000"), Refusal::Invalid),
        (&format!("pckcert?qeid={long}&cpusvn={svn}&pcesvn=1000&pceid=0000"), Refusal::Invalid),
        (&format!("pckcert?qeid=0&cpusvn={svn}0&pcesvn=1000&pceid=0000"), Refusal::Invalid),
        (&format!("pckcert?qeid=0&cpusvn={svn}&pcesvn=100&pceid=0000"), Refusal::Invalid),
        (&format!("pckcert?qeid=0&cpusvn={svn}&pcesvn=1000&pceid=00zz"), Refusal::Invalid),
        (
            &format!("pckcert?qeid=0&cpusvn={svn}&pcesvn=1000&pceid=0000&encrypted_ppid=00"),
            Refusal::Invalid,
        ),
        ("pckcrl", Refusal::Invalid),
        ("pckcrl?ca=other", Refusal::Invalid),
        ("pckcrl?ca=processor", Refusal::NotFound),
        ("tcb", Refusal::Invalid),
        ("tcb?fmspc=00", Refusal::Invalid),
        ("tcb?fmspc=434c4f495354&update=never", Refusal::Invalid),
        ("tcb?fmspc=00906ea10000", Refusal::NotFound),
        ("qe/identity?update=never", Refusal::Invalid),
        ("qve/identity", Refusal::NotFound),
        ("", Refusal::NotFound),
    ] {
        assert_eq!(ask(&pccs, rest), Err(refusal), "{rest}");
    }
    for target in ["", "/", "/sgx/certification/v3/rootcacrl", "/tdx/certification/v4/tcb"] {
        assert_eq!(pccs.answer(target), Err(Refusal::NotFound), "{target}");
    }
}

#[test]
fn what_was_not_published_by_a_manufacturer_is_refused() {
    let site = Site::new(1);
    let collateral = || site.collateral(TcbStatus::UpToDate, &[]);
    let chain = site.authority.pck_certificate(&site.platform, 16).unwrap().chain().to_owned();
    let issuer = chain.split_once("-----END CERTIFICATE-----\n").unwrap().1.to_owned();

    for (id, chain, error) in [
        ("xy", chain.clone(), PlatformError::QeId),
        ("00", String::new(), PlatformError::Chain),
        ("00", chain[10..].to_owned(), PlatformError::Chain),
        // The CA's: no certificate of a platform.
        ("00", issuer, PlatformError::Chain),
    ] {
        let refused = PublishedPlatform::new(id, &[chain], collateral());
        assert_eq!(refused.unwrap_err(), error);
    }
}
