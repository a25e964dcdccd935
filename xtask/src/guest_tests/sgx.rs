//! The guest's SGX driver, the demo's enclave and Linux's own selftests.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setup;
use super::setup::expect;
use crate::demo;
use crate::selftests::{self, Verdict};

/// The selftest that must not compete with the kernel's reclaimer (see the task `reclaimer` of
/// `guest/init`).
const BOUND: [&str; 1] = ["unclobbered_vdso_oversubscribed_remove"];

const EPC: (&str, &str) = ("--sgx-epc", "id=epc0,size=64M");

pub(super) fn driver(setup: &Setup) -> Result<()> {
    let boot = setup.tasks("sgx,dmesg:sgx").option(EPC.0, EPC.1);

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "sgx: /dev/sgx_enclave is ")?;
    expect(&transcript, "sgx: /dev/sgx_provision is ")?;
    for node in ["sgx_enclave", "sgx_provision"] {
        let missing = transcript.find(&format!("/dev/{node} is missing"));
        ensure!(missing.is_none(), "/dev/{node} is missing");
    }
    // "dmesg: LEVEL TEXT": 4 is a warning, lower is worse.
    let complaint = transcript.lines.iter().find(|line| {
        let level = line.strip_prefix("dmesg: ").and_then(|rest| rest.chars().next());
        level.is_some_and(|level| level <= '4')
    });
    ensure!(complaint.is_none(), "the kernel complains: {complaint:?}");
    Ok(())
}

pub(super) fn demo(setup: &Setup) -> Result<()> {
    demo_on(setup, 1)
}

pub(super) fn demo_on_four_processors(setup: &Setup) -> Result<()> {
    demo_on(setup, 4)
}

fn demo_on(setup: &Setup, cpus: u32) -> Result<()> {
    let mut boot = setup.tasks("sgx,enclave-demo").option(EPC.0, EPC.1);
    boot.cpus = cpus;

    let transcript = setup.boot_to_power_off(&boot)?;

    for (_, text) in demo::expectations(&setup.image) {
        expect(&transcript, &text)?;
    }
    Ok(())
}

pub(super) fn selftests(setup: &Setup) -> Result<()> {
    selftests_on(setup, 1)
}

pub(super) fn selftests_on_four_processors(setup: &Setup) -> Result<()> {
    selftests_on(setup, 4)
}

/// All of Linux's selftests, none skipped.
fn selftests_on(setup: &Setup, cpus: u32) -> Result<()> {
    let binding = selftests::binding(&BOUND)?;
    let tasks = format!("reclaimer,test_sgx:{binding}");
    let mut boot = setup.tasks(&tasks).option(EPC.0, EPC.1);
    boot.cpus = cpus;
    boot.limit = Duration::from_secs(400);

    let transcript = setup.boot_to_power_off(&boot)?;

    let verdicts = selftests::parse(&transcript.lines)?;
    let failed: Vec<_> =
        verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Passed).collect();
    ensure!(failed.is_empty(), "{failed:?}; last lines:\n{}", transcript.tail());
    Ok(())
}
