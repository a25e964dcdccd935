//! Kernels besides the stock one.

use std::time::Duration;

use anyhow::Result;

use super::Setup;
use super::setup::expect;
use super::sgx::BOUND;
use crate::image::Small;
use crate::kernel;
use crate::machine::{Boot, EPC};
use crate::selftests::{self, TESTS, check_passed};

/// Debian 12's cloud kernel 6.12 with the SGX selftests of that version. On one processor the reclaimer
/// needs no more than not to be interrupted.
pub(super) fn newer(setup: &Setup) -> Result<()> {
    let image = Small::newer_sgx_selftests(&kernel::NEWER)?;
    let boot = boot(&image, "sgx,reclaimer,test_sgx");

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, &format!("Linux version {}", image.release))?;
    expect(&transcript, "sgx: /dev/sgx_enclave is ")?;
    check_passed(&selftests::parse(&transcript.lines)?, &transcript)
}

/// The same on four processors. The one test that races with the reclaimer runs last and on the
/// reclaimer's processor.
pub(super) fn newer_on_four_processors(setup: &Setup) -> Result<()> {
    let image = Small::newer_sgx_selftests(&kernel::NEWER)?;
    let [bound] = BOUND;
    let tasks = format!("test_sgx:-T:{bound},reclaimer,first-cpu,test_sgx:-t:{bound}");
    let boot = Boot { cpus: 4, ..boot(&image, &tasks) };

    let transcript = setup.boot_to_power_off(&boot)?;

    for test in TESTS {
        let mut lines = transcript.lines.iter();
        let passed =
            lines.any(|line| line.starts_with("ok ") && line.ends_with(&format!(".{test}")));
        anyhow::ensure!(passed, "{test} did not pass; last lines:\n{}", transcript.tail());
    }
    Ok(())
}

fn boot(image: &Small, tasks: &str) -> Boot {
    let append = format!("cloister.run={tasks}");
    let boot = Boot::new(&image.kernel, &image.initrd, &append).option(EPC.0, EPC.1);
    Boot { limit: Duration::from_secs(600), ..boot }
}
