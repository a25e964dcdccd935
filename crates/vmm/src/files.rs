//! Files that a command line names, none of which may be written as one thing and used as another.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use thiserror::Error;

use crate::chardev::Chardev;
use crate::config::BootConfig;
use crate::invocation::Invocation;

/// One file is given to two options, or twice to one. The message names them and the mend.
#[derive(Debug, Error)]
pub enum SharedFile {
    /// To two options.
    #[error("{option}: {path} is the file of {other} too: name another")]
    Options {
        /// The option whose file is made or written.
        option: &'static str,
        /// Its file.
        path: String,
        /// The option that has the file too.
        other: &'static str,
    },
    /// Twice to one option.
    #[error("{option}: {path} is given twice: leave one out, or name another")]
    Twice {
        /// The option.
        option: &'static str,
        /// Its file.
        path: String,
    },
}

/// A file by what it is, not by how it is named.
#[derive(PartialEq, Eq)]
enum Place {
    /// Device and inode.
    File(u64, u64),
    /// A disk of the host, which may have several names.
    Disk(u64),
    /// A file that is not there yet: device and inode of its directory, and its name.
    New(u64, u64, OsString),
}

impl Place {
    /// Where `path` leads. `None` is a place that several may write to, such as a terminal, or one where
    /// no file can be.
    fn of(path: &Path) -> Option<Self> {
        if let Ok(found) = fs::metadata(path) {
            let kind = found.file_type();
            return if kind.is_block_device() {
                Some(Self::Disk(found.rdev()))
            } else {
                (!kind.is_char_device()).then(|| Self::File(found.dev(), found.ino()))
            };
        }
        let absolute = std::path::absolute(path).ok()?;
        let directory = fs::metadata(absolute.parent()?).ok()?;
        Some(Self::New(directory.dev(), directory.ino(), absolute.file_name()?.to_owned()))
    }
}

impl Invocation {
    /// Checks that what is made or written is nothing else that the machine has.
    ///
    /// # Errors
    ///
    /// [`SharedFile`].
    pub fn check_files(&self) -> Result<(), SharedFile> {
        let mut taken: Vec<_> =
            self.inputs().map(|(option, path)| (option, Place::of(path))).collect();
        for (option, path) in self.outputs() {
            let Some(place) = Place::of(path) else { continue };
            let other = taken.iter().find(|(_, other)| other.as_ref() == Some(&place));
            if let Some(&(other, _)) = other {
                let path = path.display().to_string();
                return Err(if other == option {
                    SharedFile::Twice { option, path }
                } else {
                    SharedFile::Options { option, path, other }
                });
            }
            taken.push((option, Some(place)));
        }
        Ok(())
    }

    /// What the machine is made of, with the options that name it.
    fn inputs(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let (kernel, initrd) = match &self.machine.boot {
            BootConfig::Kernel { kernel, initrd, .. } => (Some(kernel), initrd.as_ref()),
            BootConfig::Disk => (None, None),
        };
        let kernel = kernel.map(|path| ("--kernel", path.as_path()));
        let initrd = initrd.map(|path| ("--initrd", path.as_path()));
        let disks = self.machine.disks.iter().map(|disk| ("--disk", disk.path.as_path()));
        kernel.into_iter().chain(initrd).chain(disks)
    }

    /// What is made for the machine, with the options that name it.
    fn outputs(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let monitors = self.monitors.iter().map(|listen| ("--qmp", listen.path.as_path()));
        let console = match &self.serial {
            Chardev::File(path) => Some(path),
            Chardev::Unix(listen) => Some(&listen.path),
            Chardev::Stdio | Chardev::Null => None,
        };
        let console = console.map(|path| ("--serial", path.as_path()));
        let pidfile = self.pidfile.as_ref().map(|path| ("--pidfile", path.as_path()));
        monitors.chain(console).chain(pidfile)
    }
}
