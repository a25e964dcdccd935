//! The library as a program in C has it, which is linked with it by its name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use cloister_attest::pki::{
    Authority, Covered, FILES, Names, Revocation, Revoked, TcbStatus, Term,
};
use cloister_attest::quote::Quoter;
use cloister_attest::quoting_enclave as qe;
use cloister_sgx::layout::Report;
use cloister_sgx::{AttributeFlags, Attributes, PlatformFuses};
use zerocopy::{FromZeros as _, IntoBytes as _};

const DAY: Duration = Duration::from_secs(86_400);
/// What the program prints last: SGX_QL_COLLATERAL_VERSION_NOT_SUPPORTED and SGX_QL_ERROR_INVALID_PARAMETER
/// twice.
const REFUSED: &str = "e053 e002 e002\n";

/// A folder for the test, with the program and the library, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("cloister-quoteverify-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let scratch = Self(path);
        // Beside the test's own file.
        let tests = std::env::current_exe().unwrap();
        let built = tests.parent().unwrap().join("libsgx_dcap_quoteverify.so");
        let library = scratch.0.join("libsgx_dcap_quoteverify.so.1");
        symlink(built, &library).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify.c");
        let compiled = Command::new("cc")
            .args(["-Wall", "-Werror", "-o"])
            .arg(scratch.0.join("verify"))
            .arg(source)
            .arg(&library)
            .status()
            .unwrap();
        assert!(compiled.success());
        scratch
    }

    /// What the program says of the quote in so many days.
    fn verify(&self, folder: &str, quote: &[u8], days: i32) -> (String, String) {
        let file = self.0.join("quote");
        fs::write(&file, quote).unwrap();
        let output = Command::new(self.0.join("verify"))
            .arg(&file)
            .arg(days.to_string())
            .env("LD_LIBRARY_PATH", &self.0)
            .env("CLOISTER_PKI", self.0.join(folder))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    /// Writes what a manufacturer publishes.
    fn publish(
        &self,
        folder: &str,
        platform: &PlatformFuses,
        status: TcbStatus,
        revoked: &[Revocation],
    ) {
        let authority = Authority::of_platform(platform, Names::Cloister).unwrap();
        let term = Term { issued: SystemTime::now() - DAY, length: 30 * DAY };
        let covered = Covered { platform, revoked };
        let collateral = authority.collateral(&[covered], &term, status).unwrap();
        let folder = self.0.join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("root-ca.pem"), authority.root_pem().unwrap()).unwrap();
        for (name, bytes) in FILES.into_iter().zip(collateral.to_files()) {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn quote(platform: &PlatformFuses) -> Vec<u8> {
    let authority = Authority::of_platform(platform, Names::Cloister).unwrap();
    let mut report = Report {
        cpusvn: platform.cpusvn,
        attributes: Attributes::new(AttributeFlags::INIT | AttributeFlags::MODE64BIT, 3),
        ..Report::new_zeroed()
    };
    report.mac = platform.report_mac(&report, &qe::target_info());
    Quoter::new(platform, &authority).unwrap().quote(report.as_bytes()).unwrap()
}

#[test]
fn a_program_in_c_learns_what_a_quote_is_worth() {
    let scratch = Scratch::new();
    let (own, other) = (PlatformFuses::draw().unwrap(), PlatformFuses::draw().unwrap());
    let revoked = [Revocation { what: Revoked::Pck, since: SystemTime::now() - 2 * DAY }];
    scratch.publish("own", &own, TcbStatus::UpToDate, &[]);
    scratch.publish("other", &other, TcbStatus::UpToDate, &[]);
    scratch.publish("old", &own, TcbStatus::OutOfDate, &[]);
    scratch.publish("hardening", &own, TcbStatus::SWHardeningNeeded, &[]);
    scratch.publish("revoked", &own, TcbStatus::UpToDate, &revoked);
    scratch.publish("tcb-revoked", &own, TcbStatus::Revoked, &[]);
    let quote = quote(&own);
    let mut changed = quote.clone();
    // A byte of MRENCLAVE.
    changed[48 + 64] ^= 1;

    for (folder, quote, days, expected) in [
        ("own", &quote[..], 0, "0 0 0"),
        // Expired, and at its time it was right.
        ("own", &quote, 60, "0 1 0"),
        ("old", &quote, 0, "0 0 a002"),
        ("old", &quote, 60, "0 1 a002"),
        ("hardening", &quote, 0, "0 0 a007"),
        ("revoked", &quote, 0, "0 0 a005"),
        ("tcb-revoked", &quote, 0, "0 0 a005"),
        ("own", &changed, 0, "0 0 a004"),
        ("own", &changed, 60, "0 1 a004"),
        ("other", &quote, 0, "0 0 a004"),
        ("own", b"quote", 0, "e01d 7 7"),
    ] {
        let (said, errors) = scratch.verify(folder, quote, days);

        let line = format!("536 {expected}\n");
        assert_eq!(said, format!("{line}{line}{REFUSED}"), "{folder} in {days} days");
        assert_eq!(errors, "");
    }
    let (said, errors) = scratch.verify("nowhere", &quote, 0);
    assert!(said.starts_with("536 e01b 7 7\n536 e01b 7 7\n"), "{said}");
    let line = errors.lines().next().unwrap();
    assert!(
        line.starts_with("libsgx_dcap_quoteverify: CLOISTER_PKI: cannot read ")
            && line.ends_with(": name a folder that cloister pki wrote"),
        "{line}"
    );
}
