//! The guest of real programs: packages of Debian 12, unpacked, as an initramfs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::apt::Archive;
use crate::guest::Programs;
use crate::image::{add_mount_points, write};
use crate::kernel::{self, Kernel};
use crate::{cpio, process};

/// What `guest/programs` runs, and the libraries and files that these need.
const PACKAGES: [&str; 40] = [
    "binutils",
    "binutils-x86-64-linux-gnu",
    "coreutils",
    "cpp-12",
    "dash",
    "gcc-12",
    "gzip",
    "libacl1",
    "libattr1",
    "libbinutils",
    "libc6",
    "libc6-dev",
    "libcrypt1",
    "libctf-nobfd0",
    "libctf0",
    "libexpat1",
    "libgcc-12-dev",
    "libgcc-s1",
    "libgmp10",
    "libisl23",
    "libjansson4",
    "libmpc3",
    "libmpfr6",
    "libpcre2-8-0",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libreadline8",
    "libselinux1",
    "libsqlite3-0",
    "libssl3",
    "libtinfo6",
    "libzstd1",
    "linux-libc-dev",
    "mawk",
    "openssl",
    "perl-base",
    "python3.11-minimal",
    "sqlite3",
    "tar",
    "zlib1g",
];

/// Large files and folders of the packages that none of the programs opens.
const LEFT_OUT: [&str; 5] = [
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/lib/gcc/x86_64-linux-gnu/12/lto1",
    "usr/lib/gcc/x86_64-linux-gnu/12/libasan.a",
];

/// What to boot, and what of it runs on this machine too.
pub(in crate::bench) struct Image {
    pub(in crate::bench) kernel: PathBuf,
    pub(in crate::bench) initrd: PathBuf,
    /// The unpacked packages.
    root: PathBuf,
    runner: PathBuf,
}

impl Image {
    /// Fetches and builds whatever is missing.
    ///
    /// # Errors
    /// Packages that cannot be fetched, programs that do not compile.
    pub(in crate::bench) fn get() -> Result<Self> {
        let archive = Archive::open()?;
        let kernel = Kernel::get(&archive, &kernel::STOCK)?;
        let packages = archive.unpacked_together("programs", &PACKAGES)?;
        let programs = Programs::build()?;

        let mut root = cpio::Archive::with_console();
        root.tree(&packages, &|path| LEFT_OUT.contains(&path))?;
        root.file("init", 0o755, process::read(&programs.init)?);
        root.file("bin/programs", 0o755, process::read(&programs.programs)?);
        add_mount_points(&mut root);
        let initrd = write(&root.finish(), "programs")?;
        Ok(Self { kernel: kernel.image, initrd, root: packages, runner: programs.programs })
    }

    /// The command that runs the same programs on this machine, with the packages as its root
    /// directory and a file system in memory for what they write.
    pub(super) fn native(&self) -> Command {
        // In a mount namespace of its own, which goes away with it.
        const ENTER: &str = "mkdir -p \"$1/tmp\" \"$1/dev\" \"$1/proc\"\n\
                             mount -t tmpfs none \"$1/tmp\"\n\
                             mount --rbind /dev \"$1/dev\"\n\
                             mount --rbind /proc \"$1/proc\"\n\
                             cp \"$2\" \"$1/tmp/programs\"\n\
                             exec chroot \"$1\" /tmp/programs";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-euc", ENTER, "sh"]);
        // Where Debian has chroot; an unprivileged user's path may not.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(&self.root).arg(&self.runner);
        command
    }
}
