//! How machines end.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};

use super::Setup;
use super::setup::expect;

pub(super) fn power_off(setup: &Setup) -> Result<()> {
    let transcript = setup.boot(&setup.append("cloister.end=poweroff"))?;

    expect(&transcript, "init: up after")?;
    ensure!(transcript.exit == Some(0), "exit code {:?}", transcript.exit);
    Ok(())
}

pub(super) fn reset_with_no_reboot(setup: &Setup) -> Result<()> {
    let transcript = setup.boot(&setup.append("cloister.end=reboot"))?;

    expect(&transcript, "init: reboot")?;
    ensure!(transcript.exit == Some(2), "exit code {:?}", transcript.exit);
    Ok(())
}

pub(super) fn panic_reset(setup: &Setup) -> Result<()> {
    // panic=-1: reset at once instead of waiting.
    let transcript = setup.boot(&setup.append("panic=-1 cloister.end=exit"))?;

    expect(&transcript, "Kernel panic - not syncing")?;
    ensure!(transcript.exit == Some(2), "exit code {:?}", transcript.exit);
    Ok(())
}

pub(super) fn reset_boots_again(setup: &Setup) -> Result<()> {
    let mut boot = setup.append("cloister.end=reboot");
    boot.no_reboot = false;
    let mut boots = 0;

    setup.boot_until(&boot, |line| {
        boots += usize::from(line.contains("init: up after"));
        if boots == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;

    ensure!(boots == 2, "the kernel came up {boots} time(s)");
    Ok(())
}
