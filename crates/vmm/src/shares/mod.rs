//! Folders of the host that a guest mounts by virtio-fs, each by its tag.

mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use cloister_devices::virtio::FileSystem;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use thiserror::Error;

pub use server::FileServer;

/// What is between a tag and its folder.
const EXAMPLE: &str = "TAG=DIR[,readonly]";

/// A folder that is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShareConfig {
    /// What the guest mounts it by.
    pub tag: String,
    /// The folder.
    pub path: PathBuf,
    /// The guest cannot change it.
    pub readonly: bool,
}

/// Why a folder cannot be shared. Each message says what to write.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ShareConfigError {
    /// No tag, or no folder.
    #[error("{0:?} is not a tag and a folder: write {EXAMPLE}")]
    Syntax(String),
    /// The device has no room for the tag.
    #[error("the tag {0:?} has more than {max} bytes: write a shorter one", max = FileSystem::MAX_TAG)]
    LongTag(String),
    /// Two folders of one tag.
    #[error("the tag {0} is given to two folders: give each its own")]
    TagTwice(String),
}

/// A folder that cannot be opened.
#[derive(Debug, Error)]
#[error("cannot open the folder {path}: {reason}", path = .path.display())]
pub struct ShareError {
    path: PathBuf,
    reason: io::Error,
}

impl ShareConfig {
    /// Reads `TAG=DIR[,readonly]`.
    ///
    /// # Errors
    ///
    /// [`ShareConfigError`].
    pub fn parse(text: &str) -> Result<Self, ShareConfigError> {
        let syntax = || ShareConfigError::Syntax(text.to_owned());
        let (tag, path) = text.split_once('=').ok_or_else(syntax)?;
        let (path, readonly) = match path.strip_suffix(",readonly") {
            Some(path) => (path, true),
            None => (path, false),
        };
        if tag.is_empty() || path.is_empty() {
            return Err(syntax());
        }
        if tag.len() > FileSystem::MAX_TAG {
            return Err(ShareConfigError::LongTag(tag.to_owned()));
        }
        Ok(Self { tag: tag.to_owned(), path: path.into(), readonly })
    }

    /// Reads the folders of one machine.
    ///
    /// # Errors
    ///
    /// [`ShareConfigError`].
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, ShareConfigError> {
        let mut all: Vec<Self> = Vec::with_capacity(texts.len());
        for text in texts {
            let share = Self::parse(text)?;
            if all.iter().any(|other| other.tag == share.tag) {
                return Err(ShareConfigError::TagTwice(share.tag));
            }
            all.push(share);
        }
        Ok(all)
    }
}

/// A folder that a server shows.
#[derive(Debug)]
pub struct Folder {
    pub(crate) name: String,
    pub(crate) file: OwnedFd,
    pub(crate) writable: bool,
    /// How long the guest may take what it has seen for granted.
    pub(crate) valid: Duration,
}

impl Folder {
    /// Opens a folder, of this name where a server shows several.
    ///
    /// # Errors
    ///
    /// [`ShareError`].
    pub fn open(name: &str, path: &Path, writable: bool) -> Result<Self, ShareError> {
        Self::open_as(name, path, writable, OFlags::DIRECTORY)
    }

    /// Opens a folder or a regular file, of this name where a server shows several.
    ///
    /// # Errors
    ///
    /// [`ShareError`].
    pub fn open_any(name: &str, path: &Path, writable: bool) -> Result<Self, ShareError> {
        if path.is_dir() {
            return Self::open(name, path, writable);
        }
        let opened = Self::open_as(name, path, writable, OFlags::NOFOLLOW)?;
        let failed = |reason| ShareError { path: path.to_owned(), reason };
        let found = fstat(&opened.file).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it is neither a folder nor a regular file")));
        }
        Ok(opened)
    }

    fn open_as(name: &str, path: &Path, writable: bool, flags: OFlags) -> Result<Self, ShareError> {
        let failed = |reason| ShareError { path: path.to_owned(), reason };
        // The links on the way to it are the user's.
        let path = fs::canonicalize(path).map_err(failed)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
        let file = open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        Ok(Self { name: name.to_owned(), file, writable, valid: Duration::from_secs(1) })
    }

    /// The folder, which nobody changes for this time.
    #[must_use]
    pub fn valid_for(self, valid: Duration) -> Self {
        Self { valid, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_tag_and_a_folder_or_an_error_that_says_what_to_write() {
        let long = format!("{}=/x", "t".repeat(37));
        for (text, expected) in [
            ("data=/srv", Ok(("data", "/srv", false))),
            ("data=/a=b,c,readonly", Ok(("data", "/a=b,c", true))),
            ("/srv", Err("\"/srv\" is not a tag and a folder: write TAG=DIR[,readonly]")),
            ("=/srv", Err("\"=/srv\" is not a tag and a folder: write TAG=DIR[,readonly]")),
            ("data=", Err("\"data=\" is not a tag and a folder: write TAG=DIR[,readonly]")),
            (
                &long,
                Err("the tag \"ttttttttttttttttttttttttttttttttttttt\" has more than 36 bytes: \
                     write a shorter one"),
            ),
        ] {
            let found = ShareConfig::parse(text).map_err(|error| error.to_string());

            let expected = expected.map(|(tag, path, readonly)| ShareConfig {
                tag: tag.into(),
                path: path.into(),
                readonly,
            });
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_tag_of_two_folders_is_refused() {
        let texts = ["a=/x".to_owned(), "b=/x".to_owned(), "a=/y".to_owned()];

        let error = ShareConfig::parse_all(&texts).unwrap_err();

        assert_eq!(error, ShareConfigError::TagTwice("a".into()));
    }
}
