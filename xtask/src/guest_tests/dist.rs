//! What a user installs, in a small Debian of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::Setup;
use crate::apt::Archive;
use crate::dist::Dist;
use crate::image::hex;
use crate::kernel::{self, Kernel};
use crate::{debian, process, repository};

/// What differs after any installation, the records of dpkg itself and caches, what differs after any
/// machine, its entry in the list of the user's machines, which the next one removes, and the kernel, which stays for
/// later machines.
const RECORDS: [&str; 5] =
    ["./var/lib/dpkg", "./var/log", "./var/cache", "./tmp/cloister-0", "./root/.cache"];
/// Where the system has its package source.
const SOURCE: &str = "archive";
/// Ends a fetch of a kernel that would never end, and shows the exit code and what is left.
const INTERRUPT: &str = r"mkdir /slow
printf '#!/bin/sh\n: > half.deb\nexec sleep 1000\n' > /slow/apt-get
chmod +x /slow/apt-get
PATH=/slow:$PATH cloister exec --quiet -- true &
for _ in $(seq 600); do [ -e ~/.cache/cloister/fetch/half.deb ] && break; sleep 0.1; done
kill -TERM $!
wait $!
echo $?
ls -A ~/.cache/cloister
rm -r /slow
";

/// The package can be installed, does what it is for with a kernel that it fetches, and leaves nothing when it goes.
pub(super) fn package(setup: &Setup) -> Result<()> {
    let dist = Dist::make()?;
    let archive = Archive::open()?;
    let kernel = Kernel::get(&archive, &kernel::STOCK)?;
    let (pristine, root) = (debian::smallest(&archive)?, setup.path("root"));
    process::capture(Command::new("cp").args(["-a", "--"]).arg(&pristine).arg(&root))?;
    let size = offer(&kernel, &root)?;
    let update = enter(&root, &["apt-get", "-oAPT::Sandbox::User=root", "update"])?;
    ensure!(update.status.success(), "{update:?}");
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
    let ended = enter(&root, &["sh", "-c", INTERRUPT])?;
    ensure!(text(&ended) == "143\n" && ended.stderr.is_empty(), "{ended:?}");
    let chore = ["sh", "-c", "ls /dev/sgx*; uname -r; id -un; exit 7"];
    let chore = [&["cloister", "exec", "--"][..], &chore].concat();
    let expected = format!("/dev/sgx_enclave\n/dev/sgx_provision\n{}\nroot\n", kernel.release);
    let fetching = format!("cloister: fetching linux-image-{} ({size})\n", kernel.release);
    for said in [fetching.as_str(), ""] {
        let ran = enter(&root, &chore)?;
        ensure!(ran.status.code() == Some(7) && text(&ran) == expected, "{ran:?}");
        ensure!(ran.stderr == said.as_bytes(), "{ran:?}");
    }

    let removed = enter(&root, &["dpkg", "--purge", "cloister"])?;
    ensure!(removed.status.success(), "{removed:?}");
    let after = files(&root)?;
    let left: Vec<_> = after.symmetric_difference(&before).collect();
    ensure!(left.is_empty(), "the package leaves or takes {left:?}");
    runner(&root, &name)?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// The script of the examples for GitHub Actions and GitLab CI does its work, as in the container of a runner, and passes the
/// command's exit code on.
fn runner(root: &Path, package: &Path) -> Result<()> {
    fs::copy(repository::root().join("docs/ci/enclave-tests.sh"), root.join("enclave-tests.sh"))?;
    // The namespace has no other user.
    fs::write(root.join("etc/apt/apt.conf.d/test"), "APT::Sandbox::User \"root\";\n")?;
    let package = package.to_string_lossy();
    let command = "test -c /dev/sgx_enclave && echo tested; exit 9";
    let ran = enter(root, &["sh", "/enclave-tests.sh", &package, "sh", "-c", command])?;
    ensure!(ran.status.code() == Some(9) && text(&ran).ends_with("tested\n"), "{ran:?}");
    Ok(())
}

/// Gives a system a package source that has the kernel, and returns the size of its package as users are told it.
fn offer(kernel: &Kernel, root: &Path) -> Result<String> {
    let name = format!("linux-image-{}", kernel.release);
    let (source, unpacked) = (root.join(SOURCE), root.join(SOURCE).join("unpacked"));
    fs::create_dir_all(unpacked.join("DEBIAN"))?;
    let fields = format!(
        "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: none\nDescription: none\n"
    );
    fs::write(unpacked.join("DEBIAN/control"), &fields)?;
    let files = kernel.image.parent().and_then(Path::parent).context("a kernel in no folder")?;
    for part in ["boot", "lib"] {
        process::capture(Command::new("cp").arg("-a").arg(files.join(part)).arg(&unpacked))?;
    }
    let package = source.join("kernel.deb");
    let mut build = Command::new("dpkg-deb");
    build.args(["--build", "--root-owner-group", "-Znone"]).arg(&unpacked).arg(&package);
    process::capture(&mut build)?;
    fs::remove_dir_all(unpacked)?;
    let bytes = fs::read(package)?;
    let sum = hex(&Sha256::digest(&bytes));
    let size = bytes.len();
    let newest = "Package: linux-image-cloud-amd64\nVersion: 1\nArchitecture: amd64\nFilename: ./none.deb\nSize: 1\n";
    let packages = format!(
        "{fields}Filename: ./kernel.deb\nSize: {size}\nSHA256: {sum}\n\n{newest}Depends: {name} (= 1)\n"
    );
    fs::write(source.join("Packages"), packages)?;
    let sources = root.join("etc/apt/sources.list");
    fs::write(sources, format!("deb [trusted=yes] file:/{SOURCE} ./\n"))?;
    Ok(format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10))
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
