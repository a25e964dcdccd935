//! What the verifier says of quotes, right and wrong.

use cloister_attest::pki::{Collateral, Covered, Revocation, Revoked, TcbStatus, Term};
use cloister_attest::verify::{Policy, PolicyError, VerifyError, verify};
use dcap_qvl::verify::QuoteVerifier;
use zerocopy::IntoBytes as _;

use crate::platform::{DAY, Site, maced, now, platform, quote, rejection, unsigned_report};

/// Where the signed parts of a quote end: header and report, the signature, the attestation key, the
/// report of the quoting enclave, its signature, and its authentication data.
const SIGNED: usize = 432 + 4 + 64 + 64 + 384 + 64 + 2 + 32;

#[test]
fn a_quote_is_up_to_date_under_its_own_root_and_nothing_under_intels() {
    let site = Site::new(1);
    let quote = site.quote();
    let collateral = site.collateral(TcbStatus::UpToDate, &[]).to_qvl().expect("signed JSON");
    let now = now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();

    let verdict = site.judge(&quote, &Policy::default()).expect("it is accepted");
    let intels = QuoteVerifier::<dcap_qvl::configs::RustCryptoConfig>::new_prod();
    let refused = intels.verify(&quote, &collateral, now);

    assert_eq!(verdict.status, TcbStatus::UpToDate);
    assert!(verdict.advisories.is_empty());
    assert!(verdict.is_software());
    assert_eq!((verdict.mrenclave, verdict.mrsigner), ([0x11; 32], [0x22; 32]));
    assert_eq!((verdict.isvprodid, verdict.isvsvn, verdict.debug), (7, 3, false));
    assert_eq!(verdict.reportdata, [0x33; 64]);
    assert!(refused.is_err());
}

#[test]
fn a_quote_of_another_platform_is_refused_unless_the_authority_is_the_same() {
    let (own, other) = (Site::new(1), Site::new(2));
    let report = maced(&other.platform, unsigned_report(&other.platform));
    let certified = quote(&other.platform, &own.authority, report.as_bytes()).expect("a quote");

    assert!(own.judge(&other.quote(), &Policy::default()).is_err());
    assert!(other.judge(&own.quote(), &Policy::default()).is_err());
    assert!(own.judge(&certified, &Policy::default()).is_ok());
}

#[test]
fn a_flipped_byte_in_a_signed_part_is_found_wherever_it_is() {
    let site = Site::new(1);
    let quote = site.quote();
    let collateral = site.collateral(TcbStatus::UpToDate, &[]);
    let root = site.root();

    for at in 0..SIGNED {
        let mut changed = quote.clone();
        changed[at] ^= 1;
        let verdict = verify(&changed, root.as_bytes(), &collateral, now(), &Policy::default());
        assert!(matches!(verdict, Err(VerifyError::Rejected(_))), "byte {at}: {verdict:?}");
    }
}

#[test]
fn a_quote_cut_short_is_no_quote() {
    let site = Site::new(1);
    let quote = site.quote();
    let collateral = site.collateral(TcbStatus::UpToDate, &[]);
    let root = site.root();

    for length in (0..quote.len()).step_by(61) {
        let verdict =
            verify(&quote[..length], root.as_bytes(), &collateral, now(), &Policy::default());
        assert!(matches!(verdict, Err(VerifyError::Rejected(_))), "{length}: {verdict:?}");
    }
}

#[test]
fn other_report_data_is_found_by_the_signature_and_by_the_policy() {
    let site = Site::new(1);
    let mut changed = site.quote();
    changed[48 + 320] = 0x34;
    let asked = Policy { reportdata: Some([0x34; 64]), ..Policy::default() };

    let why = rejection(site.judge(&changed, &Policy::default()));
    let other = site.judge(&site.quote(), &asked);

    assert!(why.contains("signature is invalid"), "{why}");
    assert_eq!(other, Err(PolicyError::ReportData([0x33; 64]).into()));
}

#[test]
fn what_has_been_revoked_ends_every_quote_under_it() {
    let site = Site::new(1);
    let quote = site.quote();

    for what in [Revoked::Pck, Revoked::PckCa, Revoked::TcbSigning] {
        let revocation = Revocation { what, since: now() - DAY };
        let collateral = site.collateral(TcbStatus::UpToDate, &[revocation]);
        let verdict =
            verify(&quote, site.root().as_bytes(), &collateral, now(), &Policy::default());
        let why = rejection(verdict);
        assert!(why.contains("CertRevoked"), "{what:?}: {why}");
    }
}

#[test]
fn a_platform_is_not_revoked_with_another() {
    let (own, other) = (Site::new(1), Site::new(2));
    let report = maced(&other.platform, unsigned_report(&other.platform));
    let certified = quote(&other.platform, &own.authority, report.as_bytes()).expect("a quote");
    let revocation = Revocation { what: Revoked::Pck, since: now() - DAY };
    let collateral = own.collateral(TcbStatus::UpToDate, &[revocation]);

    let verdict = verify(&certified, own.root().as_bytes(), &collateral, now(), &Policy::default());

    assert!(verdict.is_ok(), "{verdict:?}");
}

#[test]
fn one_authority_answers_for_platforms_of_several_cpusvns_and_revokes_one() {
    let authority = Site::new(1).authority;
    let mut older = platform(3);
    older.cpusvn[0] -= 1;
    let platforms = [platform(2), older, platform(4)];
    let revocations = [Revocation { what: Revoked::Pck, since: now() - DAY }];
    let covered: [Covered<'_>; 3] = std::array::from_fn(|at| Covered {
        platform: &platforms[at],
        revoked: if at == 2 { &revocations } else { &[] },
    });
    let term = Term { issued: now() - DAY, length: 30 * DAY };
    let collateral = authority.collateral(&covered, &term, TcbStatus::UpToDate).unwrap();
    let root = authority.root_pem().unwrap();

    let verdicts = platforms.each_ref().map(|platform| {
        let report = maced(platform, unsigned_report(platform));
        let quote = quote(platform, &authority, report.as_bytes()).expect("a quote");
        verify(&quote, root.as_bytes(), &collateral, now(), &Policy::default())
    });

    let [first, second, revoked] = verdicts;
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert!(rejection(revoked).contains("CertRevoked"));
}

#[test]
fn each_part_of_the_collateral_expires() {
    let site = Site::new(1);
    let quote = site.quote();
    let current = site.collateral(TcbStatus::UpToDate, &[]);
    let term = Term { issued: now() - 31 * DAY, length: 30 * DAY };
    let covered = Covered { platform: &site.platform, revoked: &[] };
    let old = site.authority.collateral(&[covered], &term, TcbStatus::UpToDate);
    let old = old.expect("collateral");
    let why = |collateral: &Collateral| {
        let root = site.root();
        rejection(verify(&quote, root.as_bytes(), collateral, now(), &Policy::default()))
    };

    for (part, expired) in [
        ("CrlExpired", Collateral { root_crl: old.root_crl.clone(), ..current.clone() }),
        ("CrlExpired", Collateral { pck_crl: old.pck_crl.clone(), ..current.clone() }),
        ("TCBInfo expired", Collateral { tcb_info: old.tcb_info.clone(), ..current.clone() }),
        (
            "QE Identity expired",
            Collateral { qe_identity: old.qe_identity.clone(), ..current.clone() },
        ),
    ] {
        let why = why(&expired);
        assert!(why.contains(part), "{part}: {why}");
    }
}

#[test]
fn collateral_that_is_not_signed_by_the_authority_is_refused() {
    let site = Site::new(1);
    let own = site.collateral(TcbStatus::OutOfDate, &[]);
    let forged = own.tcb_info.replacen("\"OutOfDate\"", "\"UpToDate\"", 1);
    let forged = Collateral { tcb_info: forged, ..own };

    let verdict = verify(&site.quote(), site.root().as_bytes(), &forged, now(), &Policy::default());

    let why = rejection(verdict);
    assert!(why.contains("Signature is invalid for tcb_info"), "{why}");
}

#[test]
fn each_tcb_status_is_told_and_accepted_only_if_the_policy_says_so() {
    let site = Site::new(1);
    let quote = site.quote();

    for status in TcbStatus::ALL {
        let collateral = site.collateral(status, &[]);
        let judge = |statuses| {
            let policy = Policy { statuses, ..Policy::default() };
            verify(&quote, site.root().as_bytes(), &collateral, now(), &policy)
        };
        let (strict, tolerant) = (judge(vec![]), judge(vec![status]));
        match status {
            TcbStatus::UpToDate => assert!(strict.is_ok()),
            TcbStatus::Revoked => {
                assert_eq!(rejection(strict), "TCB status is invalid: Revoked");
                assert_eq!(rejection(tolerant), "TCB status is invalid: Revoked");
            }
            _ => {
                assert_eq!(strict, Err(PolicyError::Status(status).into()));
                assert_eq!(tolerant.expect("it is allowed").status, status);
            }
        }
    }
}
