//! What a guest's CPUID lacks never gets into an enclave.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Setup;
use super::sgx::EPC;

/// ATTRIBUTES.PROVISIONKEY and ATTRIBUTES.KSS, which every platform has.
const FORBIDDEN: u64 = 1 << 4 | 1 << 7;
/// Enclaves that the guest makes.
const ENCLAVES: usize = 200;

/// The platform has both attributes and the guest's CPUID neither: ECREATE exits and is refused, or
/// creates an enclave without them, whatever another thread writes meanwhile.
pub(super) fn racing_writer(setup: &Setup) -> Result<()> {
    // Not with the other files: a socket's name must be short.
    let name = format!("cloister-policy-{}.sock", std::process::id());
    let socket = std::env::temp_dir().join(name).display().to_string();
    let mut boot = setup
        .tasks("enclave-demo:policy")
        .option(EPC.0, EPC.1)
        .option("--cpu", "host,-sgx-kss")
        .option("--qmp", &format!("unix:{socket}"));
    boot.cpus = 2;
    let ended = AtomicBool::new(false);

    let (transcript, seen) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(setup, &socket, &ended));
        let transcript = setup.boot_to_power_off(&boot);
        ended.store(true, Ordering::Relaxed);
        (transcript, watching.join())
    });
    let transcript = transcript?;
    let report = seen.map_err(|_| anyhow::anyhow!("the watching thread panicked"))??;

    let said = transcript.find(" enclaves created, ").context("the guest made no enclaves")?;
    let refused = said.split(' ').rev().nth(1).and_then(|word| word.parse::<u64>().ok());
    let refused = refused.with_context(|| format!("no count: {said}"))?;
    ensure!(refused > 0, "no ECREATE was refused");
    let exits = &report["encls-exits"];
    ensure!(
        exits["ecreate"].as_u64() >= Some(ENCLAVES as u64 + refused),
        "{exits} for {ENCLAVES} enclaves and {refused} refused"
    );
    ensure!(transcript.find("init: end enclave-demo 0").is_some(), "the program failed");
    Ok(())
}

/// Looks at every enclave until all are there, and returns the report with them.
fn watch(setup: &Setup, socket: &str, ended: &AtomicBool) -> Result<Value> {
    let mut last = String::from("no report");
    while !ended.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
        let once = setup.cloister(&["epc", socket, "--once", "--json"])?;
        // The machine is not up yet.
        if !once.status.success() {
            continue;
        }
        let report: Value = serde_json::from_slice(&once.stdout).context("the report")?;
        let enclaves = report["enclaves"].as_array().context("no list of enclaves")?;
        for enclave in enclaves {
            let attributes = enclave["attributes"].as_u64().context("no attributes")?;
            ensure!(attributes & FORBIDDEN == 0, "ATTRIBUTES {attributes:#x}: {enclave}");
        }
        if enclaves.len() >= ENCLAVES {
            return Ok(report);
        }
        last = report.to_string();
    }
    anyhow::bail!("{ENCLAVES} enclaves were never there at once; last: {last}")
}
