//! `cloister epc` beside a machine that runs an enclave.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

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
    // Not with the other files: a socket's name must be short.
    let name = format!("cloister-epc-view-{}.sock", std::process::id());
    let socket = std::env::temp_dir().join(name).display().to_string();
    let mut boot = setup
        .tasks(TASKS)
        .option("--sgx-epc", "id=epc0,size=64M")
        .option("--qmp", &format!("unix:{socket}"));
    boot.cpus = THREADS as u32;
    let ended = AtomicBool::new(false);

    let (transcript, seen) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(setup, &socket, &ended));
        let transcript = setup.boot_to_power_off(&boot);
        ended.store(true, Ordering::Relaxed);
        (transcript, watching.join())
    });
    let transcript = transcript?;
    let seen = seen.map_err(|_| anyhow::anyhow!("the watching thread panicked"))??;
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

/// Asks again and again until all threads are inside, and then looks on until the end.
fn watch(setup: &Setup, socket: &str, ended: &AtomicBool) -> Result<Seen> {
    let mut last = String::from("no report");
    while !ended.load(Ordering::Relaxed) {
        let once = setup.cloister(&["epc", socket, "--once", "--json"])?;
        // The machine is not up yet.
        if !once.status.success() {
            thread::sleep(Duration::from_millis(50));
            continue;
        }
        let report: Value = serde_json::from_slice(&once.stdout).context("the report")?;
        if report["enclaves"][0]["threads-inside"] == THREADS {
            return Ok(Seen { report, rest: setup.cloister(&["epc", socket, "--json"])? });
        }
        last = report.to_string();
        thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("{THREADS} threads were never inside; last: {last}")
}
