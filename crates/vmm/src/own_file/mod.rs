//! Files that go with what made them.

mod keeper;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

pub(crate) use keeper::seal;
pub use keeper::start_keeper;

/// A file that is removed when this is dropped, unless another process has replaced it.
#[derive(Debug)]
pub(crate) struct OwnFile {
    file: NamedFile,
    /// Its number at the process that removes it, if there is one: this one may not be allowed to.
    kept: Option<u8>,
}

/// A file at a path, and only as long as it is that file.
#[derive(Clone, Debug)]
struct NamedFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl OwnFile {
    /// Takes over a file that was just made. `path` is absolute, since a daemon leaves its directory.
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        let file = NamedFile { identity: identity(&path)?, path };
        let kept = keeper::keep(&file)?;
        Ok(Self { file, kept })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl NamedFile {
    fn remove(&self) -> io::Result<()> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => fs::remove_file(&self.path),
            _ => Ok(()),
        }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let removed = match self.kept {
            Some(number) => keeper::remove(number),
            None => self.file.remove(),
        };
        if let Err(error) = removed {
            let path = self.file.path.display();
            tracing::warn!(%path, %error, "the file is left there");
        }
    }
}
