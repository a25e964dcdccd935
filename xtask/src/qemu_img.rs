//! QEMU's own judge of disk images, and what writes to them, from Debian's package qemu-utils.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt::Archive;
use crate::process;

/// The programs `qemu-img` and `qemu-io`.
pub(crate) struct QemuImg {
    root: PathBuf,
}

impl QemuImg {
    /// Fetches it, if need be.
    ///
    /// # Errors
    /// The package is not cached and cannot be fetched.
    pub(crate) fn get() -> Result<Self> {
        Ok(Self { root: Archive::open()?.unpacked_with_dependencies("qemu-utils")? })
    }

    /// Runs `qemu-img`, and returns what it prints.
    ///
    /// # Errors
    /// It fails, or finds what is to be an error.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        self.program("qemu-img", arguments)
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|path| self.root.join(path).display().to_string());
        let mut command = Command::new(self.root.join("usr/bin").join(name));
        command.env("LD_LIBRARY_PATH", libraries.join(":")).args(arguments);
        process::capture(&mut command)
    }

    /// Makes an image of `size` (`64M`), with options such as `cluster_size=4k`, on top of a raw file if one
    /// is given.
    ///
    /// # Errors
    /// As [`QemuImg::run`].
    pub(crate) fn create(
        &self,
        image: &Path,
        size: &str,
        options: &str,
        base: Option<&Path>,
    ) -> Result<()> {
        let (image, base) =
            (image.display().to_string(), base.map(|path| path.display().to_string()));
        let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", options];
        if let Some(base) = &base {
            arguments.extend(["-b", base, "-F", "raw"]);
        }
        arguments.extend([image.as_str(), size]);
        self.run(&arguments).map(drop)
    }

    /// Judges an image of a format: neither errors nor leaks.
    ///
    /// # Errors
    /// It is not clean, or as [`QemuImg::run`].
    pub(crate) fn check(&self, format: &str, image: &Path) -> Result<()> {
        self.run(&["check", "-q", "-f", format, &image.display().to_string()]).map(drop)
    }

    /// Makes a part of an image (`5M 1M`) zeros that have no room.
    ///
    /// # Errors
    /// As [`QemuImg::run`].
    pub(crate) fn zero(&self, format: &str, image: &Path, part: &str) -> Result<()> {
        let (zero, image) = (format!("write -z {part}"), image.display().to_string());
        self.program("qemu-io", &["-f", format, "-c", &zero, &image]).map(drop)
    }

    /// Compares an image of a format with a raw one.
    ///
    /// # Errors
    /// They differ, or as [`QemuImg::run`].
    pub(crate) fn compare(&self, format: &str, image: &Path, raw: &Path) -> Result<()> {
        let [image, raw] = [image, raw].map(|path| path.display().to_string());
        self.run(&["compare", "-q", "-f", format, "-F", "raw", &image, &raw]).map(drop)
    }
}
