//! Who may give guests the provisioning key: as with Linux's `/dev/sgx_provision`, whoever can open a
//! file. See [`ProvisioningRight`].

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cloister_virt::ProvisioningRight;
use thiserror::Error;

/// O_NONBLOCK of Linux on x86-64 and AArch64: a pipe in the file's place makes nobody wait.
const O_NONBLOCK: i32 = 0o4000;
/// Where users have their names.
const USERS: &str = "/etc/passwd";

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

/// The right of a process that can open `path` for reading: `provision` in the directory of a
/// software platform, `/dev/sgx_provision` on a host with SGX. What is in it has no meaning.
///
/// # Errors
///
/// [`ProvisionError`].
pub fn provisioning_right(path: &Path) -> Result<ProvisioningRight, ProvisionError> {
    let opened = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|reason| {
        if reason.kind() == ErrorKind::NotFound {
            let directory = path.parent().unwrap_or(path);
            return ProvisionError::Missing { path: path.into(), owner: owner_of(directory) };
        }
        ProvisionError::Refused { path: path.into(), owner: owner_of(path), reason }
    })?;
    if metadata.is_file() || metadata.file_type().is_char_device() {
        return Ok(ProvisioningRight::by(&file));
    }
    Err(ProvisionError::NotAFile { path: path.into(), owner: Owner::new(metadata.uid()) })
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    /// A directory for one test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("cloister-provision-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("provision")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What messages call the owner of a path.
    fn owner(path: &Path) -> String {
        let uid = fs::metadata(path).expect("a path").uid();
        let users = fs::read_to_string("/etc/passwd").expect("users");
        let marked = format!(":x:{uid}:");
        let line = users.lines().find(|line| line.contains(&marked));
        let name = line.and_then(|line| line.split(':').next());
        name.map_or_else(|| format!("user {uid}"), str::to_owned)
    }

    #[test]
    fn who_can_open_the_file_has_the_right() {
        let scratch = Scratch::new("open");
        fs::write(scratch.file(), "").expect("a file");

        let right = provisioning_right(&scratch.file());

        assert_eq!(right.expect("readable"), ProvisioningRight::of_own_platform());
        assert!(provisioning_right(Path::new("/dev/zero")).is_ok(), "a device as on hardware");
    }

    #[test]
    fn where_there_is_no_file_the_owner_of_the_directory_is_named() {
        let scratch = Scratch::new("missing");

        let error = provisioning_right(&scratch.file()).expect_err("no file");

        let (path, owner) = (scratch.file().display().to_string(), owner(&scratch.0));
        assert_eq!(
            error.to_string(),
            format!("there is no {path}: {owner} can make it with install -m 600 /dev/null {path}")
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_its_owner() {
        let scratch = Scratch::new("refused");
        // Refused to the superuser too, whom no mode keeps out.
        symlink("provision", scratch.file()).expect("a link to itself");

        let error = provisioning_right(&scratch.file()).expect_err("a loop");

        assert!(matches!(error, ProvisionError::Refused { .. }), "{error:?}");
        let text = error.to_string();
        let start =
            format!("cannot open {}, which {} owns: ", scratch.file().display(), owner(&scratch.0));
        assert!(
            text.starts_with(&start) && text.ends_with(": ask for the right to read it"),
            "{text}"
        );
    }

    #[test]
    fn a_directory_or_pipe_in_its_place_is_no_authority_and_nobody_waits_for_it() {
        let scratch = Scratch::new("pipe");
        fs::create_dir(scratch.file()).expect("a directory");
        let directory = provisioning_right(&scratch.file());
        fs::remove_dir(scratch.file()).expect("removed");
        let made = Command::new("mkfifo").arg(scratch.file()).status().expect("mkfifo");
        assert!(made.success());

        let pipe = provisioning_right(&scratch.file());

        for outcome in [directory, pipe] {
            assert!(matches!(outcome, Err(ProvisionError::NotAFile { .. })), "{outcome:?}");
        }
    }
}
