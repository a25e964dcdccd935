//! `cloister epc` beside a machine that runs an enclave.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Setup;

/// Enough interruptions for the threads to be inside for seconds.
const TASKS: &str = "enclave-demo,enclave-demo:threads:1000";
/// Threads of the demo's enclave.
const THREADS: u64 = 4;

/// What was seen of the machine from outside.
struct Seen {
    /// The report with all threads inside.
    report: Value,
    /// The reports from then on, to the machine's end.
    rest: Output,
}

pub(super) fn running(setup: &Setup) -> Result<()> {
    let socket = Setup::socket("epc-view");
    let mut boot = setup.tasks(TASKS).option("--sgx-epc", "id=epc0,size=64M");
    boot.cpus = THREADS as u32;
    let missing = format!("{THREADS} threads were never inside");
    let (transcript, seen) = setup.boot_watched(boot, &socket, &missing, |report| {
        if report["enclaves"][0]["threads-inside"] != THREADS {
            return Ok(None);
        }
        // And looks on until the end.
        let rest = setup.cloister(&["epc", &socket, "--json"])?;
        Ok(Some(Seen { report: report.clone(), rest }))
    })?;
    let after = setup.cloister(&["epc", &socket, "--once"])?;

    let said = transcript.find("MRENCLAVE in the REPORT: ").context("no MRENCLAVE")?;
    let said = said.rsplit(' ').next().unwrap_or_default();
    let enclave = &seen.report["enclaves"][0];
    ensure!(enclave["mrenclave"] == said, "another MRENCLAVE than {said}: {enclave}");
    ensure!(enclave["size"] == 256 << 20 && enclave["initialized"] == true, "{enclave}");
    let section = &seen.report["sections"][0];
    let pages = |name: &str| section["pages"][name].as_u64().unwrap_or_default();
    ensure!(section["id"] == "epc0" && pages("total") == 64 << 8, "{section}");
    ensure!(pages("secs") == 1 && pages("tcs") >= THREADS, "{section}");
    ensure!(enclave["children"].as_u64() < Some(pages("valid")), "{section}");
    ensure!(pages("valid") <= pages("backed"), "{section}");
    ensure!(section["faults"].as_u64() >= Some(pages("backed")), "{section}");

    let stderr = String::from_utf8_lossy(&seen.rest.stderr);
    ensure!(seen.rest.status.success(), "{}: {stderr}", seen.rest.status);
    ensure!(stderr.contains("the machine ended") && stderr.lines().count() == 1, "{stderr}");
    let stdout = String::from_utf8_lossy(&seen.rest.stdout);
    for line in stdout.lines() {
        serde_json::from_str::<Value>(line).with_context(|| format!("no JSON: {line}"))?;
    }
    let stderr = String::from_utf8_lossy(&after.stderr);
    ensure!(after.status.code() == Some(1), "after the end: {}: {stderr}", after.status);
    ensure!(stderr.contains("the machine has ended"), "after the end: {stderr}");
    Ok(())
}
