//! What a user installs, in a small Debian of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use super::Setup;
use crate::apt::Archive;
use crate::dist::Dist;
use crate::kernel::{self, Kernel};
use crate::{debian, process};

/// What differs after any installation, the records of dpkg itself and caches, and what differs after any
/// machine: its entry in the list of the user's machines, which the next one removes.
const RECORDS: [&str; 4] = ["./var/lib/dpkg", "./var/log", "./var/cache", "./tmp/cloister-0"];
/// Where the kernel is that the user has unpacked, as docs/exec.md says.
const CACHE: &str = "root/.cache/cloister";

/// The package can be installed, does what it is for, and leaves nothing when it goes.
pub(super) fn package(setup: &Setup) -> Result<()> {
    let dist = Dist::make()?;
    let archive = Archive::open()?;
    let kernel = Kernel::get(&archive, &kernel::STOCK)?;
    let (pristine, root) = (debian::smallest(&archive)?, setup.path("root"));
    process::capture(Command::new("cp").args(["-a", "--"]).arg(&pristine).arg(&root))?;
    let cache = root.join(CACHE);
    fs::create_dir_all(&cache)?;
    let unpacked = kernel.image.parent().and_then(Path::parent).context("a kernel in no folder")?;
    for part in ["boot", "lib"] {
        process::capture(Command::new("cp").arg("-a").arg(unpacked.join(part)).arg(&cache))?;
    }
    let name = dist.package.file_name().context("a package has no name")?;
    fs::copy(&dist.package, root.join(name))?;
    let before = files(&root)?;

    let name = Path::new("/").join(name);
    let installed = enter(&root, &["dpkg", "--install", &name.to_string_lossy()])?;
    ensure!(installed.status.success(), "{installed:?}");
    let listed = text(&enter(&root, &["dpkg", "--listfiles", "cloister"])?);
    for file in [
        "/usr/bin/cloister",
        "/usr/bin/cloister-oci",
        "/usr/share/man/man1/cloister-exec.1.gz",
        "/usr/share/bash-completion/completions/cloister",
        "/usr/share/zsh/vendor-completions/_cloister",
        "/usr/share/fish/vendor_completions.d/cloister.fish",
        "/usr/share/doc/cloister/docs/exec.md",
        "/usr/share/doc/cloister/third-party.txt",
    ] {
        ensure!(listed.lines().any(|line| line == file), "no {file} in {listed}");
    }
    let version = text(&enter(&root, &["cloister", "--version"])?);
    ensure!(version.contains("\ncommit: ") && version.contains("+exec"), "{version}");
    let features = text(&enter(&root, &["cloister-oci", "features"])?);
    ensure!(features.contains("ociVersionMin"), "{features}");
    let chore = ["sh", "-c", "ls /dev/sgx*; uname -r; id -un; exit 7"];
    let ran = enter(&root, &[&["cloister", "exec", "--"][..], &chore].concat())?;
    let expected = format!("/dev/sgx_enclave\n/dev/sgx_provision\n{}\nroot\n", kernel.release);
    ensure!(ran.status.code() == Some(7) && text(&ran) == expected, "{ran:?}");

    let removed = enter(&root, &["dpkg", "--purge", "cloister"])?;
    ensure!(removed.status.success(), "{removed:?}");
    let after = files(&root)?;
    let left: Vec<_> = after.symmetric_difference(&before).collect();
    ensure!(left.is_empty(), "the package leaves or takes {left:?}");
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// Runs a command with a folder for its root, as the folder's root.
fn enter(root: &Path, command: &[&str]) -> Result<Output> {
    // In a mount namespace of its own, which goes away with it.
    const ENTER: &str = "for place in dev proc; do mount --rbind \"/$place\" \"$1/$place\"; done\n\
                         exec chroot \"$@\"";
    const VARIABLES: [&str; 4] =
        ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"];
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-euc", ENTER, "sh"]);
    unshare.arg(root).args(["env", "-i"]).args(VARIABLES).args(command);
    // Where Debian has chroot; an unprivileged user's path may not.
    unshare.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    process::finish(&mut unshare)
}

/// Names of all files but [`RECORDS`].
fn files(root: &Path) -> Result<BTreeSet<String>> {
    let found = process::capture(Command::new("find").args([".", "-xdev"]).current_dir(root))?;
    let is_record = |line: &str| RECORDS.iter().any(|record| line.starts_with(record));
    Ok(found.lines().filter(|line| !is_record(line)).map(str::to_owned).collect())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
