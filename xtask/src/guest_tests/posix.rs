//! What a shared folder answers to POSIX calls, beside the host's file system itself.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::exec::{exec, finish};
use crate::{guest, process};

const TEST: &str = "posix";

/// Lines that differ, and why: `section: call` and its answer on the host and in the machine. docs/exec.md tells them.
const DIFFERENT: &[(&str, &str, &str)] = &[
    // A guest makes no program that runs with the rights of this user.
    ("open flags: stat h", "104755 links 1 size 0", "100755 links 1 size 0"),
    ("modes: stat f", "107777 links 1 size 0", "101777 links 1 size 0"),
    ("modes: stat d", "042755 links 0 size 0", "040755 links 0 size 0"),
    // A device would be made.
    ("rename: renameat2 u w 4", "ok", "EINVAL"),
    ("rename: list .", "h moved same u w", "h moved same u"),
    // Modes are changed of what can be opened.
    ("modes: chmod p 600", "ok", "EPERM"),
    ("modes: stat p", "010600 links 1 size 0", "010644 links 1 size 0"),
    ("modes: chmod f 644", "ok", "EACCES"),
    ("modes: stat f", "100644 links 1 size 0", "100000 links 1 size 0"),
    ("modes: chmod d 755", "ok", "EACCES"),
    ("modes: stat d", "040755 links 0 size 0", "040000 links 0 size 0"),
    // There are no attributes.
    ("attributes: setxattr . user.x y", "ok", "EOPNOTSUPP"),
    ("attributes: setxattr . system.posix_acl_access y", "EINVAL", "EOPNOTSUPP"),
];

/// Every call is answered as on the host, but for those of [`DIFFERENT`].
pub(super) fn calls(setup: &Setup) -> Result<()> {
    let place = setup.path(TEST);
    for folder in ["host", "machine"] {
        fs::create_dir_all(place.join(folder))?;
    }
    fs::copy(guest::Programs::build()?.posix, place.join("guest-posix"))?;
    let as_user = unprivileged(&place)?;
    let mut on_host = Command::new("env");
    on_host.args(&as_user).args(["./guest-posix", "host"]).current_dir(&place);
    let expected = process::capture(&mut on_host)?;
    let inner = exec(setup, TEST, &[], &["./guest-posix", "machine"])?;
    let mut outer = Command::new("env");
    outer.args(&as_user).arg(inner.get_program()).args(inner.get_args()).current_dir(&place);
    outer.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = finish(outer.spawn()?)?;
    let found = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (expected, found): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), found.lines().collect());
    ensure!(expected.len() == found.len(), "{} lines instead of {}", found.len(), expected.len());
    let mut known: BTreeMap<(&str, &str, &str), bool> =
        DIFFERENT.iter().map(|&line| (line, false)).collect();
    let mut wrong = Vec::new();
    for (host, machine) in expected.iter().zip(&found).filter(|(host, machine)| host != machine) {
        let (call, answer) = host.rsplit_once(": ").context("a line without an answer")?;
        let other = machine.rsplit_once(": ").map_or("", |(_, answer)| answer);
        match known.get_mut(&(call, answer, other)) {
            Some(seen) => *seen = true,
            None => wrong.push(format!("{host}, and in the machine {other}")),
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        expected.len(),
        wrong.join("\n")
    );
    // Not every file system of a host has attributes.
    let unseen: Vec<_> = known
        .iter()
        .filter(|((call, ..), seen)| !**seen && !call.starts_with("attributes"))
        .collect();
    ensure!(unseen.is_empty(), "these do not differ any more: {unseen:?}");
    println!("{} answers, of which {} differ as is known", expected.len(), DIFFERENT.len());
    Ok(())
}

/// How a program is started, after `env`, as a user other than root, who gets the folder.
fn unprivileged(place: &std::path::Path) -> Result<Vec<String>> {
    let id = process::finish(Command::new("id").arg("-u"))?;
    if id.stdout != b"0\n" {
        return Ok(Vec::new());
    }
    process::capture(Command::new("chown").args(["-R", "65534:65534"]).arg(place))?;
    let words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    Ok(words.map(str::to_owned).into())
}
