//! `-pidfile`: a file with the process's number, which one process at a time has.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::own_file::OwnFile;

/// Why there is no such file.
#[derive(Debug, Error)]
pub enum PidFileError {
    /// The host refuses it.
    #[error("cannot write {path}: {reason}: name a file that can be written", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// Another process has it.
    #[error("{path} is the file of a process that runs: end it, or name another", path = .0.display())]
    InUse(PathBuf),
}

/// The file, locked as long as this is there, and removed with it.
#[derive(Debug)]
pub struct PidFile {
    _own: OwnFile,
    _locked: File,
}

impl PidFile {
    /// Writes this process's number to the file.
    ///
    /// # Errors
    ///
    /// [`PidFileError`]; a file of another process is as it was.
    pub fn write(path: &Path) -> Result<Self, PidFileError> {
        let failed = |reason| PidFileError::Write { path: path.to_owned(), reason };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        // Not truncated before it is locked.
        options.write(true).create(true).truncate(false).mode(0o644);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PidFileError::InUse(path.to_owned())),
            Err(TryLockError::Error(reason)) => return Err(failed(reason)),
        }
        let own = OwnFile::new(absolute).map_err(failed)?;
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _own: own, _locked: file })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_has_the_number_and_one_owner_and_goes_at_the_end() {
        let path = std::env::temp_dir().join(format!("cloister-pid-{}", std::process::id()));
        fs::write(&path, "123456789\n").unwrap();

        let owned = PidFile::write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let second = PidFile::write(&path).unwrap_err().to_string();
        drop(owned);

        assert_eq!(text, format!("{}\n", std::process::id()));
        assert!(second.contains("is the file of a process that runs"), "{second}");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_says_so() {
        let error = PidFile::write(Path::new("/nonexistent/pid")).unwrap_err();

        assert_eq!(
            error.to_string(),
            "cannot write /nonexistent/pid: No such file or directory (os error 2): \
             name a file that can be written"
        );
    }
}
