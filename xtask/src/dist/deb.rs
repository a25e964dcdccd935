//! The Debian package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{DOCUMENTATION, VERSION, put};
use crate::process;

/// What precedes the version of the C library in the names of its symbols' versions.
const GLIBC: &[u8] = b"GLIBC_2.";

const COPYRIGHT: &str = "\
Cloister is licensed under the Apache License 2.0 or the MIT License, at your option: LICENSE-APACHE and
LICENSE-MIT in this folder. On Debian systems the former is /usr/share/common-licenses/Apache-2.0 too.

third-party.txt has the licences of the crates that the program is linked with.
";

/// Packs a staged tree; `time` is that of all files.
///
/// # Errors
/// dpkg's own.
pub(super) fn make(stage: &Path, folder: &Path, time: Option<&str>) -> Result<PathBuf> {
    let architecture = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    put(&stage.join("usr").join(DOCUMENTATION).join("copyright"), COPYRIGHT.as_bytes())?;
    let program = process::read(&stage.join("usr/bin/cloister"))?;
    let size = process::capture(Command::new("du").args(["-sk", "usr"]).current_dir(stage))?;
    let size = size.split_whitespace().next().context("du says nothing")?;
    let control = control(architecture, size, newest_glibc(&program)?);
    let sums = "find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
    let sums = process::capture(Command::new("sh").args(["-c", sums]).current_dir(stage))?;
    put(&stage.join("DEBIAN/control"), control.as_bytes())?;
    put(&stage.join("DEBIAN/md5sums"), sums.as_bytes())?;
    process::capture(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(stage))?;
    let package = folder.join(format!("cloister_{VERSION}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    build.args(["--build", "--root-owner-group"]).arg(stage).arg(&package);
    if let Some(time) = time {
        build.env("SOURCE_DATE_EPOCH", time);
    }
    process::capture(&mut build)?;
    Ok(package)
}

fn control(architecture: &str, size: &str, glibc: u32) -> String {
    format!(
        "Package: cloister\n\
         Version: {VERSION}\n\
         Architecture: {architecture}\n\
         Maintainer: The Cloister contributors <cloister@localhost>\n\
         Installed-Size: {size}\n\
         Depends: libc6 (>= 2.{glibc}), libgcc-s1\n\
         Suggests: linux-image-cloud-amd64, passt, qemu-utils\n\
         Section: otherosfs\n\
         Priority: optional\n\
         Description: virtual machine monitor that gives its guests Intel SGX\n\
         \x20An unmodified guest kernel finds an EPC, and unmodified enclaves run, on hosts\n\
         \x20that have neither SGX hardware nor KVM: the processor is software.\n\
         \x20.\n\
         \x20cloister exec runs a program of the host in a machine with SGX. It boots a kernel\n\
         \x20such as that of linux-image-cloud-amd64, installed or unpacked.\n"
    )
}

/// N of the newest version 2.N of the C library that the program wants. Versions of symbols are kept as text
/// in its dynamic string table.
fn newest_glibc(program: &[u8]) -> Result<u32> {
    let version = |at: usize| {
        let digits: Vec<u8> =
            program[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
        String::from_utf8(digits).ok()?.parse().ok()
    };
    let named = program.windows(GLIBC.len()).enumerate().filter(|(_, window)| *window == GLIBC);
    named
        .filter_map(|(at, _)| version(at + GLIBC.len()))
        .max()
        .context("the program names no version of the C library")
}

#[cfg(test)]
mod tests {
    use super::{control, newest_glibc};

    #[test]
    fn the_newest_version_of_the_c_library_counts() {
        let program = b"\x7fELF\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0";

        assert_eq!(newest_glibc(program).unwrap(), 34);
        assert!(newest_glibc(b"static").is_err());
    }

    #[test]
    fn the_control_file_has_a_field_a_line_and_a_folded_description() {
        let text = control("amd64", "7000", 34);

        for line in
            ["Package: cloister", "Installed-Size: 7000", "Depends: libc6 (>= 2.34), libgcc-s1"]
        {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        let (_, description) = text.split_once("Description: ").unwrap();
        assert!(description.lines().skip(1).all(|line| line.starts_with(' ')), "{text}");
    }
}
