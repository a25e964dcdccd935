//! A C library for programs of 32 and of 64 bits, to compile with and to run with in a guest.
//! Debian packages: gcc itself compiles for both, and has the libraries of one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt::Archive;
use crate::{cpio, process};

/// Shared libraries and loaders, where programs look for them.
const LIBRARIES: [&str; 6] = [
    "lib32/ld-linux.so.2",
    "lib32/libc.so.6",
    "lib32/libm.so.6",
    "usr/lib32/libgcc_s.so.1",
    "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
];
/// What programs name as their loaders, and where these are.
const LOADERS: [(&str, &str); 2] = [
    ("lib/ld-linux.so.2", "/lib32/ld-linux.so.2"),
    ("lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
];

/// How wide a program's pointers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bits {
    B32,
    B64,
}

/// The unpacked packages.
pub(crate) struct Sysroot {
    root: PathBuf,
    /// gcc's own files for it, in the root too.
    gcc: PathBuf,
}

impl Sysroot {
    /// Fetches what is missing.
    ///
    /// # Errors
    /// Packages that cannot be fetched; no gcc.
    pub(crate) fn get(archive: &Archive) -> Result<Self> {
        let version = process::capture(Command::new("gcc").arg("-dumpversion"))?;
        let version = version.trim();
        let library = format!("lib32gcc-{version}-dev");
        let packages = [
            "libc6",
            "libc6-dev",
            "linux-libc-dev",
            "libc6-i386",
            "libc6-dev-i386",
            "lib32gcc-s1",
            &library,
        ];
        let root = archive.unpacked_together(&format!("libc-for-gcc-{version}"), &packages)?;
        let gcc = root.join("usr/lib/gcc/x86_64-linux-gnu").join(version);
        Ok(Self { root, gcc })
    }

    /// gcc with the options that make it use these files.
    pub(crate) fn compiler(&self, bits: Bits) -> Command {
        let mut compiler = Command::new("gcc");
        compiler.arg(format!("--sysroot={}", self.root.display()));
        if bits == Bits::B32 {
            let libraries = self.root.join("usr/lib32");
            compiler.arg("-m32");
            compiler.arg("-isystem").arg(self.root.join("usr/include/x86_64-linux-gnu"));
            for folder in [&self.gcc, &libraries] {
                compiler.arg(format!("-B{}/", folder.display()));
            }
            compiler.arg("-L").arg(libraries);
        }
        compiler
    }

    /// Adds what a program that is not static needs to an initramfs.
    ///
    /// # Errors
    /// A library that cannot be read.
    pub(crate) fn add_libraries(&self, root: &mut cpio::Archive) -> Result<()> {
        for path in LIBRARIES {
            root.file(path, 0o755, process::read(&self.root.join(Path::new(path)))?);
        }
        for (loader, target) in LOADERS {
            root.link(loader, target);
        }
        Ok(())
    }
}
