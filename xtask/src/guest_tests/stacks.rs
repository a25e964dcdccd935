//! What others have written for SGX, under `cloister exec` (docs/stacks).

use std::fs;

use anyhow::{Result, ensure};

use super::Setup;
use super::exec::{check, run};
use crate::apt::Archive;
use crate::fortanix;
use crate::selftests::{self, Verdict};

/// Runs the selftests with the kernel's reclaimer as a real-time thread, as guests of `cargo xtask test` do.
const SELFTESTS: &str = "for process in /proc/[0-9]*; do
    [ \"$(cat $process/comm)\" != ksgxd ] || chrt --fifo --pid 1 ${process#/proc/}
done
exec ./test_sgx";

/// Linux's SGX selftests.
pub(super) fn selftests(setup: &Setup) -> Result<()> {
    const TEST: &str = "stacks-selftests";
    let built = selftests::build(&Archive::open()?)?;
    let folder = setup.path(TEST);
    fs::create_dir_all(&folder)?;
    fs::copy(&built.program, folder.join("test_sgx"))?;
    fs::copy(&built.enclave, folder.join("test_encl.elf"))?;

    let output = run(setup, TEST, &["--user", "root"], &["sh", "-c", SELFTESTS])?;

    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let verdicts = selftests::parse(&lines)?;
    let failed: Vec<_> =
        verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Passed).collect();
    ensure!(failed.is_empty() && output.status.success(), "{failed:?}: {text}");
    Ok(())
}

/// Fortanix EDP's runner, with an enclave that makes usercalls.
pub(super) fn fortanix(setup: &Setup) -> Result<()> {
    const TEST: &str = "stacks-fortanix";
    let runner = fortanix::runner(&Archive::open()?)?;
    let folder = setup.path(TEST);
    fs::create_dir_all(&folder)?;
    fs::copy(runner, folder.join("ftxsgx-runner"))?;
    fortanix::hello(&folder)?;

    for options in [&["--signature", "coresident"], &["--signature", "dummy"]] {
        let command = [&["./ftxsgx-runner", "hello.sgxs"][..], options].concat();
        let output = run(setup, TEST, &[], &command)?;
        check(&output, 0, "hello from an enclave of Fortanix EDP's ABI\n", "")?;
    }
    Ok(())
}
