//! Attestation in a machine: from an enclave by its REPORT to a verdict.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::exec::{check, put_demo, run};

/// REPORTDATA of the enclave, and other.
const REPORTDATA: &str = "5e";
const OTHER: &str = "5f";

/// Makes a platform and its certificates.
pub(super) fn certified(setup: &Setup, name: &str) -> Result<String> {
    let platform = setup.path(name).display().to_string();
    let output = setup.cloister(&["pki", "--platform", &platform])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(platform)
}

/// Makes an authority and two platforms that it certifies.
pub(super) fn certified_together(setup: &Setup) -> Result<[String; 3]> {
    let names = ["authority", "first", "second"];
    let paths = names.map(|name| setup.path(name).display().to_string());
    let [authority, first, second] = &paths;
    let pki = ["pki", "--authority", authority, "--platform", first, "--platform", second];
    let output = setup.cloister(&pki)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(paths)
}

/// `cloister verify` on a quote, with the root and collateral of a platform.
pub(super) fn verdict(
    setup: &Setup,
    quote: &Path,
    platform: &str,
    options: &[&str],
) -> Result<Result<String, String>> {
    let quote = quote.display().to_string();
    let (root, pki) = (format!("{platform}/pki/root-ca.pem"), format!("{platform}/pki"));
    let mut words = vec!["verify", &quote, "--root", &root, "--collateral", &pki];
    words.extend(options);
    let output = setup.cloister(&words)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match output.status.code() {
        Some(0) => Ok(text(&output.stdout)),
        Some(1) => Err(text(&output.stderr)),
        _ => anyhow::bail!("{output:?}"),
    })
}

/// Runs the demo's enclave, which has a REPORT quoted, on a platform.
pub(super) fn quote(setup: &Setup, name: &str, options: &[&str]) -> Result<std::process::Output> {
    put_demo(setup, name)?;
    let reportdata = REPORTDATA.repeat(64);
    let script = format!("ln -s $PWD /enclave && exec ./enclave-demo quote quote.bin {reportdata}");
    let options = [&["--user", "root"], options].concat();
    run(setup, name, &options, &["sh", "-c", &script])
}

/// An enclave's quote from the AESM socket is accepted under its platform's root, and nothing else is.
pub(super) fn quotes(setup: &Setup) -> Result<()> {
    let own = certified(setup, "attest-own")?;
    let other = certified(setup, "attest-other")?;
    let output = quote(setup, "attest", &["--attest", "--platform", &own])?;
    let written = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && written.contains("quote of"), "{output:?}");
    ensure!(written.contains("a REPORT that was changed: AESM_INVALID_REPORT"), "{written}");
    let file = setup.path("attest").join("quote.bin");

    let reportdata = REPORTDATA.repeat(64);
    let asked = ["--mrenclave", &setup.image.mrenclave, "--report-data", &reportdata];
    let accepted = verdict(setup, &file, &own, &asked)?;
    let accepted = accepted.ok().context("the quote is refused")?;
    ensure!(accepted.contains("status      UpToDate") && accepted.contains("a software platform"));

    let elsewhere = verdict(setup, &file, &other, &[])?;
    ensure!(
        elsewhere.as_ref().is_err_and(|line| line.starts_with("cloister: QUOTE: ")),
        "{elsewhere:?}"
    );
    let other_data = OTHER.repeat(64);
    let refused = verdict(setup, &file, &own, &["--report-data", &other_data])?;
    ensure!(refused.as_ref().is_err_and(|line| line.contains("--report-data: ")), "{refused:?}");
    let mut changed = fs::read(&file)?;
    // A byte of MRENCLAVE.
    changed[48 + 64] ^= 1;
    let damaged = setup.path("damaged");
    fs::write(&damaged, &changed)?;
    let refused = verdict(setup, &damaged, &own, &[])?;
    ensure!(
        refused.as_ref().is_err_and(|line| line.starts_with("cloister: QUOTE: ")),
        "{refused:?}"
    );
    Ok(())
}

/// Quotes of two platforms of one authority are accepted under its root, and a third platform's under its own alone.
pub(super) fn one_authority(setup: &Setup) -> Result<()> {
    let [authority, first, second] = certified_together(setup)?;
    let third = certified(setup, "third")?;

    let under = ["--authority", &authority];
    for (name, platform, options) in [
        ("in-first", &first, &under[..]),
        ("in-second", &second, &under),
        ("in-third", &third, &[]),
    ] {
        let output =
            quote(setup, name, &[&["--attest", "--platform", platform], options].concat())?;
        ensure!(output.status.success(), "{output:?}");
        let file = setup.path(name).join("quote.bin");
        for judge in [&first, &second, &third] {
            let accepted = verdict(setup, &file, judge, &[])?;
            let expected = (platform == &third) == (judge == &third);
            ensure!(accepted.is_ok() == expected, "{platform} under {judge}: {accepted:?}");
        }
    }
    Ok(())
}

/// Without the right to the provisioning key, or the option, there is no quote.
pub(super) fn withheld(setup: &Setup) -> Result<()> {
    let platform = certified(setup, "attest-withheld")?;
    let without = quote(setup, "attest-without", &["--platform", &platform])?;
    ensure!(
        without.status.code() == Some(1)
            && String::from_utf8_lossy(&without.stdout).contains("aesm.socket: No such file"),
        "{without:?}"
    );
    fs::remove_file(format!("{platform}/provision"))?;
    let options = ["--attest", "--platform", &platform];
    let refused = run(setup, "attest-withheld", &options, &["true"])?;
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    let start =
        "cloister: --platform: what certifies follows from the provisioning key, and there is no ";
    ensure!(line.starts_with(start) && line.lines().count() == 1, "{line}");
    check(&refused, 125, "", &line)
}
