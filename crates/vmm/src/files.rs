//! Files that are given for a machine, none of which may be written as one thing and used as another.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use thiserror::Error;

use crate::chardev::Chardev;
use crate::complaint::{Complaint, Phrase, Setting};
use crate::config::BootConfig;
use crate::gdb;
use crate::invocation::Invocation;
use crate::platform_dir::own_files;

/// One file is given for two settings, or twice for one.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SharedFile {
    /// For two settings.
    #[error("{path} is the file of {} too", other.plain())]
    Settings {
        /// The setting whose file is made or written.
        setting: Setting,
        /// Its file.
        path: String,
        /// The setting that has the file too.
        other: Setting,
    },
    /// Twice for one setting.
    #[error("{path} is given twice")]
    Twice {
        /// The setting.
        setting: Setting,
        /// Its file.
        path: String,
    },
}

impl SharedFile {
    /// Which setting is at fault, why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        match self {
            Self::Settings { setting, path, other } => {
                let why = Phrase::from(format!("{path} is the file of ")).setting(*other);
                Complaint::new(*setting, why.text(" too"), "name another")
            }
            Self::Twice { setting, .. } => {
                Complaint::new(*setting, self.to_string(), "leave one out, or name another")
            }
        }
    }
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

/// Whether both paths lead to the same file, or would.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    Place::of(one).is_some_and(|place| Place::of(other) == Some(place))
}

impl Invocation {
    /// Checks that what is made or written is nothing else that the machine has.
    ///
    /// # Errors
    ///
    /// [`SharedFile`].
    pub fn check_files(&self) -> Result<(), SharedFile> {
        let mut taken: Vec<_> =
            self.inputs().map(|(setting, path)| (setting, Place::of(path))).collect();
        let platform = self.machine.platform.iter().flat_map(|directory| own_files(directory));
        taken.extend(platform.map(|path| (Setting::Platform, Place::of(&path))));
        for (setting, path) in self.outputs() {
            let Some(place) = Place::of(path) else { continue };
            let other = taken.iter().find(|(_, other)| other.as_ref() == Some(&place));
            if let Some(&(other, _)) = other {
                let path = path.display().to_string();
                return Err(if other == setting {
                    SharedFile::Twice { setting, path }
                } else {
                    SharedFile::Settings { setting, path, other }
                });
            }
            taken.push((setting, Some(place)));
        }
        Ok(())
    }

    /// What the machine is made of, with the settings that name it.
    fn inputs(&self) -> impl Iterator<Item = (Setting, &Path)> {
        let (kernel, initrd) = match &self.machine.boot {
            BootConfig::Kernel { kernel, initrd, .. } => (Some(kernel), initrd.as_ref()),
            BootConfig::Disk => (None, None),
        };
        let kernel = kernel.map(|path| (Setting::Kernel, path.as_path()));
        let initrd = initrd.map(|path| (Setting::Initrd, path.as_path()));
        let images = self.machine.disks.iter().flat_map(|disk| {
            let backing = disk.backing.iter().map(|backing| backing.path.as_path());
            [disk.path.as_path()].into_iter().chain(backing)
        });
        kernel.into_iter().chain(initrd).chain(images.map(|path| (Setting::Disk, path)))
    }

    /// What is made for the machine, with the settings that name it.
    fn outputs(&self) -> impl Iterator<Item = (Setting, &Path)> {
        let monitors = self.monitors.iter().map(|listen| (Setting::Monitor, listen.path.as_path()));
        let console = match &self.serial {
            Chardev::File(path) => Some(path),
            Chardev::Unix(listen) => Some(&listen.path),
            Chardev::Stdio | Chardev::Null => None,
        };
        let console = console.map(|path| (Setting::Console, path.as_path()));
        let gdb = match &self.gdb {
            Some(gdb::Address::Unix(listen)) => Some((Setting::Gdb, listen.path.as_path())),
            Some(gdb::Address::Tcp(_)) | None => None,
        };
        let pidfile = self.pidfile.as_ref().map(|path| (Setting::PidFile, path.as_path()));
        let vsock = self.vsock.as_ref().map(|vsock| (Setting::Vsock, vsock.path.as_path()));
        let networks = self.network_sockets();
        monitors.chain(vsock).chain(networks).chain(console).chain(gdb).chain(pidfile)
    }
}
