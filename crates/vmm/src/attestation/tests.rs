//! The commands from one end to the other, but for the enclave: its REPORT is made with the REPORT
//! key of the quoting enclave.

use std::fs;
use std::path::PathBuf;

use aes::Aes128;
use clap::Parser;
use cloister_attest::quoting_enclave as qe;
use cloister_sgx::layout::{KeyRequest, Report, key_name};
use cloister_sgx::{AttributeFlags, Attributes, EnclaveIdentity, PlatformFuses};
use cmac::{Cmac, KeyInit as _, Mac as _};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;
use crate::platform_dir;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Pki(PkiArgs),
    Quote(QuoteArgs),
    Verify(VerifyArgs),
}

/// A directory for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("cloister-attestation-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// Runs a command whose `@` stands for the directory.
    fn run(&self, line: &str) -> Result<String, String> {
        let line = line.replace('@', &self.0.display().to_string());
        let words = ["cloister"].into_iter().chain(line.split_whitespace());
        let said = match Line::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Pki(args) => pki(&args),
            Command::Quote(args) => quote(&args).map(|()| String::new()),
            // On a thread of its own, which stays confined.
            Command::Verify(args) => {
                std::thread::spawn(move || verify(&args)).join().expect("a verdict")
            }
        };
        said.map_err(|error| error.to_string())
    }

    /// Writes the REPORT of an enclave with these attributes on the platform `@/platform`.
    fn report(&self, flags: AttributeFlags) {
        let platform = platform_dir::open(&self.0.join("platform")).expect("a platform");
        fs::write(self.0.join("report"), report(&platform, flags)).expect("a file");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn report(platform: &PlatformFuses, flags: AttributeFlags) -> Vec<u8> {
    let mut report = Report {
        cpusvn: platform.cpusvn,
        attributes: Attributes::new(AttributeFlags::INIT | flags, 3),
        mrenclave: [0x11; 32],
        mrsigner: [0x22; 32],
        isvsvn: 3.into(),
        ..Report::new_zeroed()
    };
    let target = qe::target_info();
    let enclave = EnclaveIdentity {
        mrenclave: target.measurement,
        mrsigner: qe::mrsigner(),
        isvprodid: qe::ISVPRODID,
        isvsvn: qe::ISVSVN,
    };
    let request = KeyRequest { keyname: key_name::REPORT.into(), ..KeyRequest::new_zeroed() };
    let key = platform.egetkey(&enclave, target.attributes, &request).expect("a REPORT key");
    report.mac = mac(&key, &report.as_bytes()[..Report::MACED]);
    report.as_bytes().to_vec()
}

fn mac(key: &[u8; 16], message: &[u8]) -> [u8; 16] {
    let mut cmac = Cmac::<Aes128>::new(key.into());
    cmac.update(message);
    cmac.finalize().into_bytes().into()
}

const PKI: &str = "pki --platform @/platform";
const QUOTE: &str = "quote --platform @/platform --report @/report --out @/quote";
const VERIFY: &str = "verify @/quote --root @/platform/pki/root-ca.pem --collateral @/platform/pki";

#[test]
fn three_commands_lead_from_a_platform_to_a_verdict() {
    let scratch = Scratch::new("three");
    let hash = "11".repeat(32);

    let issued = scratch.run(PKI).expect("certificates");
    scratch.report(AttributeFlags::MODE64BIT);
    scratch.run(QUOTE).expect("a quote");
    let verdict = scratch.run(&format!("{VERIFY} --mrenclave {hash} --isvsvn 3"));

    assert!(issued.contains("development root"), "{issued}");
    let verdict = verdict.expect("it is accepted");
    for part in [
        "status      UpToDate",
        "root        CN=Cloister development SGX Root CA",
        "platform    a software platform: nothing here is about hardware",
        &format!("MRENCLAVE   {hash}"),
        "debug       no",
    ] {
        assert!(verdict.contains(part), "{verdict}");
    }
    assert_eq!(fs::read(scratch.0.join("platform/pki/qe-target-info")).unwrap().len(), 512);
}

#[test]
fn what_is_asked_of_the_quote_is_told_by_its_option() {
    let scratch = Scratch::new("refused");
    scratch.run(&format!("{PKI} --tcb-status OutOfDate")).expect("certificates");
    scratch.report(AttributeFlags::MODE64BIT | AttributeFlags::DEBUG);
    scratch.run(QUOTE).expect("a quote");

    for (options, expected) in [
        ("", "QUOTE: the enclave can be debugged, which is not allowed: --debug would accept it"),
        (
            "--debug",
            "QUOTE: the TCB status is OutOfDate, which is not allowed: \
             --tcb-status OutOfDate would accept it",
        ),
        (
            "--isvsvn 4",
            "--isvsvn: ISVSVN is 3, and 4 is asked for at least: do not rely on the quote",
        ),
        ("--mrenclave 12", "--mrenclave: \"12\" is not 64 hexadecimal digits"),
        ("--report-data xy", "--report-data: \"xy\" is not 128 hexadecimal digits"),
        ("--isvprodid -1", "--isvprodid: \"-1\" is not a number: write 0 to 65535"),
        (
            "--tcb-status Fine",
            "--tcb-status: there is no TCB status \"Fine\": the statuses are UpToDate,",
        ),
    ] {
        let refused = scratch.run(&format!("{VERIFY} {options}")).unwrap_err();
        assert!(refused.starts_with(expected), "{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    let accepted = scratch.run(&format!("{VERIFY} --debug --tcb-status OutOfDate"));
    assert!(accepted.expect("it is allowed").contains("status      OutOfDate"));
}

#[test]
fn a_revocation_lasts() {
    let scratch = Scratch::new("revoked");
    scratch.run(PKI).expect("certificates");
    scratch.report(AttributeFlags::MODE64BIT);
    scratch.run(QUOTE).expect("a quote");

    scratch.run(&format!("{PKI} revoke pck")).expect("a list");
    scratch.run(&format!("{PKI} revoke pck tcb-signing")).expect("a list");
    let revoked = fs::read_to_string(scratch.0.join("platform/revoked")).expect("the file");
    let again = scratch.run(PKI);
    let verdict = scratch.run(VERIFY).unwrap_err();
    fs::write(scratch.0.join("platform/revoked"), "pck yesterday\n").expect("a file");
    let damaged = scratch.run(PKI).unwrap_err();

    let names: Vec<&str> = revoked.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["pck", "tcb-signing"]);
    assert!(again.is_ok());
    assert!(verdict.starts_with("QUOTE: ") && verdict.contains("Revoked"), "{verdict}");
    assert!(
        damaged.ends_with("line 1 is not a certificate and a time: remove the line"),
        "{damaged}"
    );
}

#[test]
fn platforms_of_one_authority_are_verified_under_one_root() {
    let scratch = Scratch::new("authority");
    let authority = "--authority @/authority";
    let pki = format!("pki {authority} --platform @/platform --platform @/second");

    let issued = scratch.run(&pki).expect("certificates");
    scratch.report(AttributeFlags::MODE64BIT);
    scratch.run(&format!("{QUOTE} {authority}")).expect("a quote");
    let of = |folder: &str| VERIFY.replace("@/platform/pki", folder);
    let other = scratch.run(&of("@/second/pki"));
    scratch.run(&format!("{pki} revoke pck tcb-signing")).expect("a list");
    let lines = |name: &str| {
        let text = fs::read_to_string(scratch.0.join(name)).expect("the file");
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let lists = ["authority/revoked", "platform/revoked", "second/revoked"].map(lines);
    // Its own authority still knows nothing of that.
    scratch.run("pki --platform @/second --out @/own").expect("certificates");
    scratch.run(QUOTE).expect("a quote");
    let alone = scratch.run(&of("@/second/pki"));

    assert_eq!(issued.lines().count(), 3, "{issued}");
    assert!(other.expect("it is accepted").contains("status      UpToDate"));
    assert_eq!(lists, [vec!["tcb-signing"], vec!["pck"], vec!["pck"]]);
    assert!(alone.unwrap_err().starts_with("QUOTE: "));
    for (line, expected) in [
        ("pki --platform @/platform --platform @/second", "--platform: it is given several times"),
        (&format!("{pki} --out @/out"), "--out: there are several platforms"),
        (&format!("{PKI} --authority @/report"), "--authority: @/report is not a directory"),
    ] {
        let refused = scratch.run(line).unwrap_err();
        let expected = expected.replace('@', &scratch.0.display().to_string());
        assert!(refused.starts_with(&expected) && refused.lines().count() == 1, "{refused}");
    }
}

#[test]
fn mistakes_are_one_line_that_names_the_option_and_the_fix() {
    let scratch = Scratch::new("mistakes");
    scratch.run(PKI).expect("certificates");
    fs::write(scratch.0.join("short"), b"REPORT").expect("a file");
    fs::write(scratch.0.join("other"), [0; 432]).expect("a file");
    scratch.report(AttributeFlags::MODE64BIT);
    scratch.run(QUOTE).expect("a quote");

    let cases: [(&str, &str); 12] = [
        ("pki --platform @/short", "--platform: @/short is not a directory"),
        (&format!("{PKI} --days 0"), "--days: \"0\" is not a number of days: write 1 to 3650"),
        (&format!("{PKI} --tcb-status x"), "--tcb-status: there is no TCB status \"x\": the"),
        (&format!("{PKI} --out @/short/x"), "--out: cannot write @/short/x: "),
        (&QUOTE.replace("@/report", "@/none"), "--report: cannot read @/none: No such file"),
        (&QUOTE.replace("@/report", "@/short"), "--report: it has 6 bytes, and a REPORT has 432"),
        (&QUOTE.replace("@/report", "@/other"), "--report: its MAC is not of this platform"),
        (&QUOTE.replace("@/quote", "@/none/quote"), "--out: cannot write @/none/quote: "),
        (&VERIFY.replace("@/quote", "@/none"), "QUOTE: cannot read @/none: No such file"),
        (&VERIFY.replace("@/quote", "@/other"), "QUOTE: Failed to decode quote"),
        (&VERIFY.replace("@/platform/pki/root-ca.pem", "@/short"), "--root: the root is not a"),
        (
            &VERIFY.replace("--collateral @/platform/pki", "--collateral @"),
            "--collateral: cannot read @/root-ca.crl: No such file",
        ),
    ];
    for (line, expected) in cases {
        let refused = scratch.run(line).unwrap_err();
        let expected = expected.replace('@', &scratch.0.display().to_string());
        assert!(refused.starts_with(&expected), "{line}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
}

#[test]
fn a_platform_whose_provisioning_key_is_withheld_certifies_nothing() {
    let scratch = Scratch::new("withheld");
    scratch.run(PKI).expect("certificates");
    scratch.report(AttributeFlags::MODE64BIT);
    fs::remove_file(scratch.0.join("platform/provision")).expect("the file is there");

    for line in [PKI, QUOTE] {
        let refused = scratch.run(line).unwrap_err();
        let expected =
            "--platform: what certifies follows from the provisioning key, and there is no";
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn nothing_takes_the_place_of_a_platforms_files() {
    let scratch = Scratch::new("taken");
    scratch.run("pki --platform @/platform").unwrap();
    scratch.run("pki --platform @/other").unwrap();
    scratch.report(AttributeFlags::INIT);
    let identity = fs::read(scratch.0.join("platform/identity")).unwrap();

    for out in ["platform/identity", "platform/provision", "other/../platform/revoked", "report"] {
        let error = scratch
            .run(&format!("quote --platform @/platform --report @/report --out @/{out}"))
            .unwrap_err();
        assert!(error.starts_with("--out: ") && error.ends_with(": name another"), "{error}");
    }
    let error = scratch.run("pki --platform @/other --out @/platform/pki").unwrap_err();

    assert!(error.ends_with(" has the files of another platform: name another folder"), "{error}");
    assert_eq!(fs::read(scratch.0.join("platform/identity")).unwrap(), identity);
    scratch.run("quote --platform @/platform --report @/report --out @/platform/quote").unwrap();
}
