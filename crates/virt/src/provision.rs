//! Who may give guests the provisioning key.
//!
//! The key is the same for every owner of a platform (SDM Vol. 3D, 38.17, EGETKEY: OWNER_EPOCH is
//! no part of it), so whoever has it can tell platforms apart for ever. Linux lets a process have
//! it for enclaves or for a virtual machine if it can open `/dev/sgx_provision`
//! (`sgx_set_attribute`, `KVM_CAP_SGX_ATTRIBUTE`); here, too, a file is the authority.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// O_NONBLOCK of Linux on x86-64 and AArch64: a pipe in the file's place makes nobody wait.
const O_NONBLOCK: i32 = 0o4000;
/// Where users have their names.
const USERS: &str = "/etc/passwd";

/// The right to give a virtual machine the provisioning key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProvisioningRight(());

/// Why a process has no right to the provisioning key.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// There is no file to open.
    #[error("there is no {path}: {owner} can make it with install -m 600 /dev/null {path}", path = .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Who owns the directory.
        owner: Owner,
    },
    /// The process may not open the file.
    #[error("cannot open {path}, which {owner} owns: {reason}: ask for the right to read it", path = .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: Owner,
        /// What the host said.
        reason: io::Error,
    },
    /// There is something else in the file's place.
    #[error("{path}, which {owner} owns, is not a file: {owner} can make it one", path = .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// Who owns it.
        owner: Owner,
    },
}

/// A user of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    uid: u32,
    name: Option<String>,
}

impl ProvisioningRight {
    /// The right of a process that can open `path` for reading: `provision` in the directory of a
    /// software platform, `/dev/sgx_provision` on a host with SGX. What is in it has no meaning.
    ///
    /// # Errors
    ///
    /// [`ProvisionError`].
    pub fn open(path: &Path) -> Result<Self, ProvisionError> {
        let opened = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
        let metadata = opened.and_then(|file| file.metadata()).map_err(|reason| {
            if reason.kind() == ErrorKind::NotFound {
                let directory = path.parent().unwrap_or(path);
                return ProvisionError::Missing { path: path.into(), owner: owner_of(directory) };
            }
            ProvisionError::Refused { path: path.into(), owner: owner_of(path), reason }
        })?;
        if metadata.is_file() || metadata.file_type().is_char_device() {
            return Ok(Self(()));
        }
        Err(ProvisionError::NotAFile { path: path.into(), owner: Owner::new(metadata.uid()) })
    }

    /// The right to the keys of a platform that the process itself has made and that ends with it:
    /// they identify nothing.
    #[must_use]
    pub const fn of_own_platform() -> Self {
        Self(())
    }
}

/// The owner of a path, as far as it can be known; the superuser of one that cannot be looked at.
fn owner_of(path: &Path) -> Owner {
    Owner::new(fs::symlink_metadata(path).map_or(0, |metadata| metadata.uid()))
}

impl Owner {
    fn new(uid: u32) -> Self {
        let users = fs::read_to_string(USERS).unwrap_or_default();
        let name = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        Self { uid, name }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}"),
            None => write!(f, "user {}", self.uid),
        }
    }
}
