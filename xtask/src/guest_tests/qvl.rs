//! Intel's Quote Verification Library, whose sample application the user has built (docs/attestation.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::attest::{certified, quote};
use crate::process;

/// Seconds until all of `cloister pki` has expired, which is good for 30 days.
const EXPIRED: u64 = 40 * 24 * 60 * 60;

/// The application, and files for it.
struct Qvl<'a> {
    program: &'a Path,
    setup: &'a Setup,
}

impl Qvl<'_> {
    /// What it says of a quote, with the root of one platform and the collateral of another.
    fn judge(&self, quote: &Path, root: &str, platform: &str, options: &[&str]) -> Result<String> {
        let pki = |name: &str| Path::new(platform).join("pki").join(name);
        // It wants the certificates of the PCK and of its issuers apart.
        let chain = fs::read_to_string(pki("pck-chain-16.pem"))?;
        let (end, rest) = chain.split_once("-----BEGIN CERTIFICATE-----").unwrap_or_default();
        ensure!(end.is_empty(), "pck-chain-16.pem does not begin with a certificate");
        let at = chain.len() - rest.len()
            + rest.find("-----BEGIN").context("pck-chain-16.pem has one certificate")?;
        let (certificate, issuers) = chain.split_at(at);
        let certificate = self.setup.file("pck.pem", certificate.as_bytes())?;
        let issuers = self.setup.file("issuers.pem", issuers.as_bytes())?;

        let mut program = Command::new(self.program);
        let root = Path::new(root).join("pki/root-ca.pem");
        let files: [(&str, PathBuf); 9] = [
            ("trustedRootCaCert", root),
            ("pckCert", certificate.into()),
            ("pckSignChain", issuers.into()),
            ("tcbSignChain", pki("tcb-signing-chain.pem")),
            ("tcbInfo", pki("tcb-info.json")),
            ("qeIdentity", pki("qe-identity.json")),
            ("rootCaCrl", pki("root-ca.crl")),
            ("intermediateCaCrl", pki("pck-ca.crl")),
            ("quote", quote.to_owned()),
        ];
        for (option, file) in files {
            program.arg(format!("--{option}")).arg(file);
        }
        let output = process::finish(program.args(options))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a platform's certificates and collateral anew.
    fn certify(&self, platform: &str, words: &[&str]) -> Result<()> {
        let output = self.setup.cloister(&[&["pki", "--platform", platform], words].concat())?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }
}

/// A quote is accepted under its root; another root, a changed byte, a TCB out of date, a revoked PCK and expired
/// CRLs are what they are.
pub(crate) fn verdicts(setup: &Setup, program: &Path) -> Result<()> {
    let program =
        &fs::canonicalize(program).with_context(|| format!("--qvl {}", program.display()))?;
    let qvl = Qvl { program, setup };
    let (own, other) = (certified(setup, "own")?, certified(setup, "other")?);
    for names in [&[][..], &["--intel-names"]] {
        qvl.certify(&own, names)?;
        let options = [&["--attest", "--platform", &own], names].concat();
        let made = quote(setup, "quoted", &options)?;
        ensure!(made.status.success(), "{made:?}");
        let good = setup.path("quoted").join("quote.bin");
        let mut bytes = fs::read(&good)?;
        // A byte of MRENCLAVE, and one of REPORTDATA.
        let damaged = [48 + 64, 48 + 320].map(|at| {
            bytes[at] ^= 1;
            let file = setup.file(&format!("damaged-{at}"), &bytes);
            bytes[at] ^= 1;
            file
        });

        let expect = |said: String, line: &str| {
            let accepted = said.contains("Verification results: true");
            ensure!(said.contains(line) && accepted == line.ends_with("OK!"), "{line}: {said}");
            Ok(())
        };
        expect(qvl.judge(&good, &own, &own, &[])?, "Quote verification OK!")?;
        for file in damaged {
            let said = qvl.judge(Path::new(&file?), &own, &own, &[])?;
            expect(said, "STATUS_INVALID_QUOTE_SIGNATURE")?;
        }
        let said = qvl.judge(&good, &other, &own, &[])?;
        expect(said, "STATUS_SGX_PCK_CERT_CHAIN_UNTRUSTED")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let late = ["--expirationDate", &(now + EXPIRED).to_string()];
        expect(qvl.judge(&good, &own, &own, &late)?, "STATUS_SGX_CRL_EXPIRED")?;
        qvl.certify(&own, &[names, &["--tcb-status", "OutOfDate"]].concat())?;
        expect(qvl.judge(&good, &own, &own, &[])?, "STATUS_TCB_OUT_OF_DATE")?;
    }
    qvl.certify(&own, &["--intel-names", "revoke", "pck"])?;
    let said = qvl.judge(&setup.path("quoted").join("quote.bin"), &own, &own, &[])?;
    ensure!(said.contains("results: false") && said.contains("STATUS_PCK_REVOKED"), "{said}");
    Ok(())
}
