//! Folders of the host in the guest.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use super::Setup;
use super::setup::expect;

/// The guest looks for what is beside the folder, and changes what is in it.
pub(super) fn folder(setup: &Setup) -> Result<()> {
    let share = setup.path("share");
    fs::create_dir_all(share.join("folder"))?;
    fs::write(setup.path("secret"), "secret")?;
    fs::write(share.join("file"), "contents")?;
    symlink("../secret", share.join("out"))?;
    let boot = setup.tasks("modules,share:data:data,share:fixed:fixed");
    let boot = boot.option("--share", &format!("data={}", share.display()));
    let boot = boot.option("--share", &format!("fixed={},readonly", share.display()));

    let transcript = setup.boot_to_power_off(&boot)?;

    for line in [
        "share: data: file file contents",
        "share: data: folder folder",
        "share: data: out: No such file or directory",
        "share: data: written",
        "share: fixed: file file contents",
        "share: fixed: out: No such file or directory",
        "share: fixed: not written: Read-only file system",
    ] {
        expect(&transcript, line)?;
    }
    ensure!(fs::read_to_string(share.join("folder/new"))? == "written by the guest");
    ensure!(fs::read_to_string(setup.path("secret"))? == "secret");
    Ok(())
}
