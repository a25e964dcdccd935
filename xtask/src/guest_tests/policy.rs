//! What a guest's CPUID lacks never gets into an enclave.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Setup;
use crate::machine::EPC;

/// ATTRIBUTES.PROVISIONKEY and ATTRIBUTES.KSS, which every platform has.
const FORBIDDEN: u64 = 1 << 4 | 1 << 7;
/// Enclaves that the guest makes.
const ENCLAVES: usize = 200;

/// The platform has both attributes and the guest's CPUID neither: ECREATE exits and is refused, or
/// creates an enclave without them, whatever another thread writes meanwhile.
pub(super) fn racing_writer(setup: &Setup) -> Result<()> {
    let mut boot =
        setup.tasks("enclave-demo:policy").option(EPC.0, EPC.1).option("--cpu", "host,-sgx-kss");
    boot.cpus = 2;
    let missing = format!("{ENCLAVES} enclaves were never there at once");
    let (transcript, report) =
        setup.boot_watched(boot, &Setup::socket("policy"), &missing, all_allowed)?;

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

/// Looks at every enclave, and at the report when all are there.
fn all_allowed(report: &Value) -> Result<Option<Value>> {
    let enclaves = report["enclaves"].as_array().context("no list of enclaves")?;
    for enclave in enclaves {
        let attributes = enclave["attributes"].as_u64().context("no attributes")?;
        ensure!(attributes & FORBIDDEN == 0, "ATTRIBUTES {attributes:#x}: {enclave}");
    }
    Ok((enclaves.len() >= ENCLAVES).then(|| report.clone()))
}
