//! What the guest kernel finds of the virtual EPC.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Setup;
use crate::console::Transcript;

const MIB: u64 = 1 << 20;

/// Sizes in bytes of the sections that the kernel's log names, in its order.
fn sections(transcript: &Transcript) -> Result<Vec<u64>> {
    transcript
        .lines
        .iter()
        .filter_map(|line| line.split_once("sgx: EPC section ").map(|(_, range)| range.trim()))
        .map(|range| {
            let number = |text: &str| {
                u64::from_str_radix(text.trim_start_matches("0x"), 16)
                    .with_context(|| format!("the kernel's EPC section {range}"))
            };
            let (start, end) = range.split_once('-').context("a section without an end")?;
            // The kernel prints the last byte.
            Ok(number(end)? + 1 - number(start)?)
        })
        .collect()
}

fn sizes_appear(setup: &Setup, sizes: &[u64]) -> Result<()> {
    let mut boot = setup.tasks("sgx");
    for (index, size) in sizes.iter().enumerate() {
        boot = boot.option("--sgx-epc", &format!("id=epc{index},size={}M", size / MIB));
    }

    let transcript = setup.boot_to_power_off(&boot)?;

    let seen = sections(&transcript)?;
    ensure!(seen == sizes, "the kernel saw sections of {seen:?} bytes");
    Ok(())
}

pub(super) fn one_section(setup: &Setup) -> Result<()> {
    sizes_appear(setup, &[64 * MIB])
}

pub(super) fn two_sections(setup: &Setup) -> Result<()> {
    sizes_appear(setup, &[32 * MIB, 96 * MIB])
}

pub(super) fn eight_sections(setup: &Setup) -> Result<()> {
    sizes_appear(setup, &[8, 16, 24, 32, 40, 48, 56, 64].map(|size| size * MIB))
}

pub(super) fn huge_section(setup: &Setup) -> Result<()> {
    const GIB: u64 = 1 << 30;
    let mut boot = setup.tasks("sgx").option("--sgx-epc", "id=epc0,size=64G");
    // The guest kernel keeps a structure for each of the 16 million pages.
    boot.memory = "3G".to_owned();
    boot.limit = Duration::from_secs(300);

    let transcript = setup.boot_to_power_off(&boot)?;

    let seen = sections(&transcript)?;
    ensure!(seen == [64 * GIB], "the kernel saw sections of {seen:?} bytes");
    let resident = transcript.peak_kib / 1024;
    ensure!(resident < 4096, "{resident} MiB were resident for an EPC that nobody used");
    Ok(())
}

pub(super) fn no_section(setup: &Setup) -> Result<()> {
    let transcript = setup.boot_to_power_off(&setup.tasks("sgx"))?;

    ensure!(sections(&transcript)?.is_empty(), "the kernel saw EPC sections");
    ensure!(transcript.find("sgx: /dev/sgx_enclave is missing").is_some(), "the driver came up");
    Ok(())
}

pub(super) fn no_launch_control(setup: &Setup) -> Result<()> {
    let boot = setup.tasks("sgx").option("--sgx-epc", "id=epc0,size=64M");
    let transcript = setup.boot_to_power_off(&boot.option("--cpu", "host,-sgxlc"))?;

    // Linux wants to write the hash MSRs, and then leaves SGX alone altogether.
    ensure!(transcript.find("sgx: /dev/sgx_enclave is missing").is_some(), "the driver came up");
    Ok(())
}
