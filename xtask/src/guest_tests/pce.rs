//! Intel's provisioning certification enclave, where the user has it (docs/attestation.md).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey as _;
use x509_cert::Certificate;
use x509_cert::der::Encode as _;

use super::Setup;
use super::attest::certified;
use super::exec::{put_demo, run};
use crate::{process, repository};

/// Bytes of a REPORT that its MAC, and the PCE, speak for (SDM vol. 3D, table 35-21).
const REPORT_BODY_SIZE: usize = 384;

/// What Intel's own PCE signs in a machine is verified under the PCK certificate that `cloister pki` makes.
pub(crate) fn signature(setup: &Setup, library: &Path) -> Result<()> {
    const TEST: &str = "pce";
    let folder = put_demo(setup, TEST)?;
    // The machine has a /tmp of its own; the library finds the enclave beside itself.
    let library =
        fs::canonicalize(library).with_context(|| format!("--pce {}", library.display()))?;
    process::capture(Command::new("cp").arg("-rL").arg(&library).arg(folder.join("psw")))?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-o"]).arg(folder.join("pce"));
    process::capture(gcc.arg(repository::root().join("guest/stacks/pce.c")))?;
    let platform = certified(setup, "platform")?;

    let script = format!(
        "ln -s $PWD /enclave; export LD_LIBRARY_PATH=$PWD/psw
         ./pce target target.bin && ./enclave-demo report target.bin {} report.bin &&
         ./pce sign report.bin signature.bin",
        "5e".repeat(64)
    );
    let options = ["--user", "root", "--cpu", "host,+sgx-provisionkey", "--platform", &platform];
    let output = run(setup, TEST, &options, &["sh", "-c", &script])?;
    ensure!(output.status.success(), "{output:?}");
    let written = String::from_utf8_lossy(&output.stdout);
    let isvsvn = written.lines().find_map(|line| line.strip_prefix("pce: ISVSVN "));
    let isvsvn = isvsvn.with_context(|| format!("no ISVSVN in {written}"))?;
    println!("           a PCE with ISVSVN {isvsvn}");

    let chain = fs::read_to_string(format!("{platform}/pki/pck-chain-{isvsvn}.pem"))?;
    let certificate = Certificate::load_pem_chain(chain.as_bytes())?;
    let certificate = certificate.first().context("a chain without a certificate")?;
    let key = certificate.tbs_certificate().subject_public_key_info().to_der()?;
    let key = VerifyingKey::from_public_key_der(&key)?;
    let report = fs::read(folder.join("report.bin"))?;
    let signature = Signature::from_slice(&fs::read(folder.join("signature.bin"))?)?;
    let signed = &report[..REPORT_BODY_SIZE];
    key.verify(signed, &signature).context("the signature is not of the certified key")?;
    let mut changed = signed.to_vec();
    changed[0] ^= 1;
    ensure!(key.verify(&changed, &signature).is_err(), "the signature is of anything");
    Ok(())
}
