//! Parts of the kernel's source, from Debian's package of it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::apt::Archive;
use crate::{process, repository};

/// What the selftests are compiled from.
const MEMBERS: [&str; 15] = [
    "scripts/subarch.include",
    "tools/testing/selftests/kvm",
    "tools/testing/selftests/rseq",
    "tools/testing/selftests/sgx",
    "tools/testing/selftests/x86",
    "tools/testing/selftests/kselftest.h",
    "tools/testing/selftests/kselftest_harness.h",
    "tools/testing/selftests/lib.mk",
    "tools/arch/x86/include",
    "tools/build",
    "tools/include",
    "tools/lib/rbtree.c",
    "tools/scripts",
    "arch/x86/include/asm",
    "arch/x86/include/uapi/asm",
];

/// The folder with the parts of a version. The package holds a compressed archive.
///
/// # Errors
/// Packages that cannot be fetched; tar's own.
pub(crate) fn unpacked(archive: &Archive, version: &str) -> Result<PathBuf> {
    let name = format!("linux-source-{version}");
    let destination = repository::cache().join("linux-source").join(version);
    let complete = destination.join(".complete");
    let root = destination.join(&name);
    let contents = MEMBERS.join("\n");
    if fs::read_to_string(&complete).is_ok_and(|unpacked| unpacked == contents) {
        return Ok(root);
    }
    let package = archive.unpacked(&name)?;
    let xz = archive.xz()?;
    process::step(&format!("Unpacking the selftests' source of Linux {version}"));
    let start = Instant::now();
    let _ = fs::remove_dir_all(&destination);
    fs::create_dir_all(&destination)?;
    process::capture(
        Command::new("tar")
            .arg(format!("--use-compress-program={}", xz.display()))
            .arg("-xf")
            .arg(package.join(format!("usr/src/{name}.tar.xz")))
            .arg("-C")
            .arg(&destination)
            .args(MEMBERS.map(|member| format!("{name}/{member}"))),
    )?;
    fs::write(complete, contents)?;
    process::done(start);
    Ok(root)
}
