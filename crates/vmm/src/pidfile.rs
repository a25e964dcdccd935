//! `-pidfile`: a file with the process's number, which one process at a time has.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use thiserror::Error;

use crate::host_file::open_for_writing;
use crate::own_file::OwnFile;

/// Longest contents that are a process's number: the digits of a 64-bit one, and a newline.
const LONGEST: u64 = 21;

/// Why the file cannot be made.
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
    /// It is not a regular file, but a device, for example.
    #[error("{path} is not a regular file: name one that is, or one that is not there yet", path = .0.display())]
    NotRegular(PathBuf),
    /// It has been written for something else.
    #[error("{path} exists and is not a pidfile: remove it, or name another", path = .0.display())]
    Foreign(PathBuf),
    /// Another user has it.
    #[error("{path} belongs to another user: name another", path = .0.display())]
    NotOwn(PathBuf),
    /// Another process has it.
    #[error("{path} is the file of a running process: end it, or name another", path = .0.display())]
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
    /// [`PidFileError`]; a file that is another process's, or no pidfile, is as it was.
    pub fn write(path: &Path) -> Result<Self, PidFileError> {
        let failed = |reason| PidFileError::Write { path: path.to_owned(), reason };
        let absolute = std::path::absolute(path).map_err(failed)?;
        // A device may do something when it is opened.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(PidFileError::NotRegular(path.to_owned()));
        }
        // Not truncated before it is locked.
        let mut file = open_for_writing(path, 0o644, false).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(PidFileError::NotRegular(path.to_owned()));
        }
        // Whoever has a file could write another number into it.
        if found.uid() != geteuid().as_raw() {
            return Err(PidFileError::NotOwn(path.to_owned()));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PidFileError::InUse(path.to_owned())),
            Err(TryLockError::Error(reason)) => return Err(failed(reason)),
        }
        if !has_number(&mut file).map_err(failed)? {
            return Err(PidFileError::Foreign(path.to_owned()));
        }
        let own = OwnFile::new(absolute).map_err(failed)?;
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _own: own, _locked: file })
    }
}

/// Whether a file has nothing in it but perhaps the number of a process, in a line.
fn has_number(file: &mut File) -> io::Result<bool> {
    let mut contents = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut contents)?;
    Ok(match contents.as_slice() {
        [] => true,
        [digits @ .., b'\n'] => {
            !digits.is_empty()
                && contents.len() as u64 <= LONGEST
                && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

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
        assert!(second.contains("is the file of a running process"), "{second}");
        assert!(!path.exists());
    }

    #[test]
    fn a_link_that_anybody_can_make_and_a_pipe_are_refused() {
        let folder = std::env::temp_dir().join(format!("cloister-pids-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(folder.join("precious"), "precious").unwrap();
        symlink(folder.join("precious"), folder.join("link")).unwrap();
        let owner = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, folder.join("pipe"), pipe, owner, 0).unwrap();

        let link = PidFile::write(&folder.join("link")).unwrap_err().to_string();
        let pipe = PidFile::write(&folder.join("pipe")).unwrap_err().to_string();

        assert!(link.contains("there is a link on the way, and anybody can make one in"), "{link}");
        assert!(pipe.contains("pipe is not a regular file: name one that is"), "{pipe}");
        assert!(folder.join("pipe").exists());
        assert_eq!(fs::read(folder.join("precious")).unwrap(), b"precious");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_has_something_else_in_it_is_refused_and_left_as_it_is() {
        let path = std::env::temp_dir().join(format!("cloister-not-pid-{}", std::process::id()));
        for contents in ["precious", "\n", "12", "12\n13\n", "12 \n", "-1\n", &"1".repeat(4096)] {
            fs::write(&path, contents).unwrap();

            let error = PidFile::write(&path).unwrap_err().to_string();

            assert!(
                error.ends_with("exists and is not a pidfile: remove it, or name another"),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_empty_is_taken() {
        let path = std::env::temp_dir().join(format!("cloister-new-pid-{}", std::process::id()));
        fs::write(&path, "").unwrap();

        let owned = PidFile::write(&path).unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(owned);
    }

    #[test]
    fn a_device_is_refused_and_stays() {
        // By a link, so that no mistake can take the device from the host.
        let path = std::env::temp_dir().join(format!("cloister-null-{}", std::process::id()));
        symlink("/dev/null", &path).unwrap();

        let error = PidFile::write(&path).unwrap_err().to_string();

        assert!(
            error.contains(" is not a regular file: name one that is, or one that is"),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
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
