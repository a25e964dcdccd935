//! Folders of the host in the guest.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::{fs, thread};

use anyhow::{Result, ensure};

use super::setup::expect;
use super::{Setup, exec};
use crate::guest::Programs;
use crate::process;

/// Changes that each of three makes.
const STEPS: &str = "2000";

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

/// Two guests and the host change a folder at random at the same time; each finds its own as it left it, and at the end
/// the others' as they say.
pub(super) fn three(setup: &Setup) -> Result<()> {
    const TEST: &str = "shared";
    let folder = setup.path(TEST);
    fs::create_dir_all(&folder)?;
    fs::copy(Programs::build()?.files, folder.join("guest-files"))?;
    let words = |name: &'static str, others: [&'static str; 2]| {
        ["./guest-files", ".", name, STEPS, others[0], others[1]]
    };

    let outputs = thread::scope(|scope| {
        let guests = [("one", ["two", "host"]), ("two", ["host", "one"])].map(|(name, others)| {
            scope.spawn(move || exec::run(setup, TEST, &[], &words(name, others)))
        });
        let [program, arguments @ ..] = words("host", ["one", "two"]);
        let host = process::finish(
            Command::new(folder.join(program)).args(arguments).current_dir(&folder),
        );
        let guests = guests
            .map(|guest| guest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        [host].into_iter().chain(guests).collect::<Result<Vec<_>>>()
    })?;

    for output in outputs {
        let text = String::from_utf8_lossy(&output.stdout);
        let agreed = text.lines().filter(|line| line.ends_with("is as it says")).count();
        ensure!(output.status.success() && agreed == 2, "{output:?}");
    }
    Ok(())
}
