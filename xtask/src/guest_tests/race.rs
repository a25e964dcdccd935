//! The selftest that competes with the kernel's EPC reclaimer, left to itself: how often it wins.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::sgx::BOUND;
use crate::image::Small;
use crate::kernel;
use crate::machine::{Boot, EPC};

const TIMES: u32 = 20;

/// The reclaimer ends its batch before the test comes to it, unless the host takes the processor away in
/// the middle for long: the guest then owes the test a long turn. The machine wants an idle host.
pub(super) fn on_one_processor(setup: &Setup) -> Result<()> {
    let passed = count(setup, 1)?;

    ensure!(passed == TIMES, "it passed {passed} times of {TIMES}");
    Ok(())
}

/// The test's outcome is the scheduler's, and no fault of the machine.
pub(super) fn on_two_processors(setup: &Setup) -> Result<()> {
    count(setup, 2).map(drop)
}

pub(super) fn on_four_processors(setup: &Setup) -> Result<()> {
    count(setup, 4).map(drop)
}

/// Runs the test in one guest, and prints and returns how often it passed. The program is that of
/// Linux 6.12, which can run one test alone and has the same text of it; the kernel is the stock one.
fn count(setup: &Setup, cpus: u32) -> Result<u32> {
    let image = Small::newer_sgx_selftests(&kernel::STOCK)?;
    let [test] = BOUND;
    let append = format!("cloister.run=repeat:{TIMES}:test_sgx:-t:{test}");
    let boot = Boot::new(&image.kernel, &image.initrd, &append).option(EPC.0, EPC.1);
    let boot = Boot { cpus, limit: Duration::from_secs(2400), ..boot };

    let transcript = setup.boot_to_power_off(&boot)?;

    let line = transcript.find("repeat: test_sgx ended well ").context("the runs did not end")?;
    let passed = line.split(' ').nth(4).and_then(|word| word.parse().ok());
    let passed = passed.with_context(|| format!("no number in {line:?}"))?;
    println!("    {test} passed {passed} times of {TIMES} on {cpus} processor(s)");
    Ok(passed)
}
