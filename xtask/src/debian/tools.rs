//! debootstrap and what lets it work without root: fakeroot keeps the owners that files shall
//! have, fakechroot gives programs another root directory. Both are Debian packages, unpacked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::apt::Archive;
use crate::process;

/// The release that is installed.
const SUITE: &str = "bookworm";

/// Where each tool is.
pub(super) struct Tools {
    debootstrap: PathBuf,
    fakeroot: PathBuf,
    libfakeroot: PathBuf,
    fakechroot: PathBuf,
    libfakechroot: PathBuf,
    /// Programs that debootstrap needs and the system does not have.
    wget: Option<PathBuf>,
    mirror: String,
}

impl Tools {
    /// Fetches what is missing.
    ///
    /// # Errors
    /// Packages that cannot be fetched; a system without package sources of the release.
    pub(super) fn get(archive: &Archive) -> Result<Self> {
        let library = "usr/lib/x86_64-linux-gnu";
        Ok(Self {
            debootstrap: archive.unpacked("debootstrap")?,
            fakeroot: archive.unpacked("fakeroot")?,
            libfakeroot: archive
                .unpacked("libfakeroot")?
                .join(library)
                .join("libfakeroot/libfakeroot-sysv.so"),
            fakechroot: archive.unpacked("fakechroot")?,
            libfakechroot: archive
                .unpacked("libfakechroot")?
                .join(library)
                .join("fakechroot/libfakechroot.so"),
            wget: match Path::new("/usr/bin/wget").exists() {
                true => None,
                false => Some(archive.unpacked_with_dependencies("wget")?),
            },
            mirror: mirror()?,
        })
    }

    /// A shell that takes itself for root's and runs a script with these tools:
    ///
    /// - `$DEBOOTSTRAP`: the program;
    /// - `$SUITE` and `$MIRROR`: its arguments;
    /// - `$ENTER`: runs a program, after a root directory, in that directory.
    ///
    /// `settings` is the folder with fakechroot's settings for `$ENTER`.
    pub(super) fn shell(&self, script: &str, settings: &Path) -> Command {
        let bin = self.fakechroot.join("usr/sbin");
        let mut command = powerless();
        command.arg(self.fakeroot.join("usr/bin/fakeroot-sysv"));
        command.arg("--faked").arg(self.fakeroot.join("usr/bin/faked-sysv"));
        command.arg("--lib").arg(&self.libfakeroot).args(["sh", "-euc", script]);
        let paths = [&bin, &self.fakechroot.join("usr/bin")];
        let mut path: String = paths.map(|path| format!("{}:", path.display())).concat();
        if let Some(wget) = &self.wget {
            path += &format!("{}:", wget.join("usr/bin").display());
            let library = wget.join("usr/lib/x86_64-linux-gnu");
            command.env("LD_LIBRARY_PATH", library);
        }
        path += "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let enter = format!(
            "{} --lib {} --config-dir {} --bindir {} --environment root chroot",
            self.fakechroot.join("usr/bin/fakechroot").display(),
            self.libfakechroot.display(),
            settings.display(),
            bin.display(),
        );
        command
            .env("PATH", path)
            // A preloaded library of this name stays before fakechroot's.
            .env("FAKEROOT_ALT_LIB", &self.libfakeroot)
            .env("DEBOOTSTRAP", self.debootstrap.join("usr/sbin/debootstrap"))
            .env("DEBOOTSTRAP_SCRIPTS", self.debootstrap.join("usr/share/debootstrap"))
            .env("SUITE", SUITE)
            .env("MIRROR", &self.mirror)
            .env("ENTER", enter)
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Runs a program, whose name and arguments follow, without the powers that root may have: what the
/// packages' scripts take for their own system is the one that the image is made on.
fn powerless() -> Command {
    const WITHOUT: [&str; 4] = ["--bounding-set", "-all", "--inh-caps", "-all"];
    let mut attempt = Command::new("setpriv");
    attempt.args(WITHOUT).arg("true").stdin(Stdio::null()).stderr(Stdio::null());
    if attempt.status().is_ok_and(|status| status.success()) {
        let mut command = Command::new("setpriv");
        command.args(WITHOUT);
        return command;
    }
    // Nobody but root can give up the powers of future programs, or has any.
    Command::new("env")
}

/// The system's own source of the release's packages.
fn mirror() -> Result<String> {
    let format = "$(SITE) $(RELEASE) $(COMPONENT)";
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let text = process::capture(&mut command)?;
    let mirror = text.lines().find_map(|line| {
        let (site, rest) = line.split_once(' ')?;
        (rest == format!("{SUITE} main")).then(|| site.to_owned())
    });
    mirror.with_context(|| {
        format!(
            "the system's package sources do not have {SUITE}, whose packages the disk is made of"
        )
    })
}
