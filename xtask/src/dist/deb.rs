//! The Debian package.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{VERSION, put};
use crate::process;

/// What precedes the version of the C library in the names of its symbols' versions.
const GLIBC: &[u8] = b"GLIBC_2.";

const COPYRIGHT: &str = "\
Cloister is licensed under the Apache License 2.0 or the MIT License, at your option: LICENSE-APACHE and
LICENSE-MIT in this folder. On Debian systems the former is /usr/share/common-licenses/Apache-2.0 too.

third-party.txt has the licences of the crates that the program is linked with.
";

/// What a package is named, and says of itself.
pub(super) struct Package {
    /// Its name.
    pub(super) name: &'static str,
    /// Fields of the control file that only it has, a line each, `Description` the last of them.
    pub(super) fields: String,
    /// Maintainer scripts, by their names.
    pub(super) scripts: &'static [(&'static str, &'static str)],
}

/// Packs a staged tree; `time` is that of all files.
///
/// # Errors
/// dpkg's own.
pub(super) fn make(
    package: &Package,
    stage: &Path,
    folder: &Path,
    time: Option<&str>,
) -> Result<PathBuf> {
    let architecture = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let documentation = stage.join("usr/share/doc").join(package.name);
    put(&documentation.join("copyright"), COPYRIGHT.as_bytes())?;
    let size = process::capture(Command::new("du").args(["-sk", "usr"]).current_dir(stage))?;
    let size = size.split_whitespace().next().context("du says nothing")?;
    let sums = "find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
    let sums = process::capture(Command::new("sh").args(["-c", sums]).current_dir(stage))?;
    put(&stage.join("DEBIAN/control"), control(package, architecture, size).as_bytes())?;
    put(&stage.join("DEBIAN/md5sums"), sums.as_bytes())?;
    process::capture(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(stage))?;
    for (name, script) in package.scripts {
        let path = stage.join("DEBIAN").join(name);
        put(&path, script.as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let path = folder.join(format!("{}_{VERSION}_{architecture}.deb", package.name));
    let mut build = Command::new("dpkg-deb");
    build.args(["--build", "--root-owner-group"]).arg(stage).arg(&path);
    if let Some(time) = time {
        build.env("SOURCE_DATE_EPOCH", time);
    }
    process::capture(&mut build)?;
    Ok(path)
}

fn control(package: &Package, architecture: &str, size: &str) -> String {
    format!(
        "Package: {name}\n\
         Version: {VERSION}\n\
         Architecture: {architecture}\n\
         Maintainer: The Cloister contributors <cloister@localhost>\n\
         Installed-Size: {size}\n\
         Priority: optional\n\
         {fields}\n",
        name = package.name,
        fields = package.fields,
    )
}

/// The package of the command, whose program wants a C library at least as new.
pub(super) fn command(program: &[u8]) -> Result<Package> {
    let glibc = newest_glibc(program)?;
    let fields = format!(
        "Depends: libc6 (>= 2.{glibc}), libgcc-s1\n\
         Suggests: linux-image-cloud-amd64, passt, qemu-utils\n\
         Section: otherosfs\n\
         Description: virtual machine monitor that gives its guests Intel SGX\n\
         \x20An unmodified guest kernel finds an EPC, and unmodified enclaves run, on hosts\n\
         \x20that have neither SGX hardware nor KVM: the processor is software.\n\
         \x20.\n\
         \x20cloister exec runs a program of the host in a machine with SGX. It boots a kernel\n\
         \x20such as that of linux-image-cloud-amd64, installed or unpacked."
    );
    Ok(Package { name: "cloister", fields, scripts: &[] })
}

/// The package for guests, whose service starts when it is installed.
pub(super) fn aesmd() -> Package {
    Package {
        name: "cloister-aesmd",
        fields: "Conflicts: sgx-aesm-service\n\
                 Section: admin\n\
                 Description: Intel's AESM socket in a virtual machine of Cloister's\n\
                 \x20Enclaves in the machine have their REPORTs quoted at it, under the development\n\
                 \x20root of the machine's platform. cloister aesm on the host answers, over vsock."
            .to_owned(),
        scripts: &[
            (
                "postinst",
                "#!/bin/sh\nset -e\n[ \"$1\" = configure ] || exit 0\n\
                 deb-systemd-helper enable cloister-aesmd.service >/dev/null\n\
                 if [ -d /run/systemd/system ]; then\n    systemctl daemon-reload\n    \
                 deb-systemd-invoke restart cloister-aesmd.service\nfi\n",
            ),
            (
                "prerm",
                "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then\n    \
                 deb-systemd-invoke stop cloister-aesmd.service\nfi\n",
            ),
            (
                "postrm",
                "#!/bin/sh\nset -e\n[ \"$1\" != remove ] || deb-systemd-helper mask cloister-aesmd.service >/dev/null\n\
                 [ \"$1\" != purge ] || deb-systemd-helper purge cloister-aesmd.service >/dev/null\n\
                 [ \"$1\" != purge ] || deb-systemd-helper unmask cloister-aesmd.service >/dev/null\n\
                 [ ! -d /run/systemd/system ] || systemctl daemon-reload\n",
            ),
        ],
    }
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
    use super::{aesmd, command, control, newest_glibc};

    #[test]
    fn the_newest_version_of_the_c_library_counts() {
        let program = b"\x7fELF\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0";

        assert_eq!(newest_glibc(program).unwrap(), 34);
        assert!(newest_glibc(b"static").is_err());
    }

    #[test]
    fn the_control_file_has_a_field_a_line_and_a_folded_description() {
        let program = b"GLIBC_2.34\0";
        for (package, lines) in [
            (
                command(program).unwrap(),
                ["Package: cloister", "Depends: libc6 (>= 2.34), libgcc-s1"],
            ),
            (aesmd(), ["Package: cloister-aesmd", "Conflicts: sgx-aesm-service"]),
        ] {
            let text = control(&package, "amd64", "7000");

            for line in lines.into_iter().chain(["Installed-Size: 7000"]) {
                assert!(text.lines().any(|found| found == line), "{text}");
            }
            let (_, description) = text.split_once("Description: ").unwrap();
            assert!(description.lines().skip(1).all(|line| line.starts_with(' ')), "{text}");
        }
    }
}
