//! Files of the host: made where others may put links in their way, and read as far as they may be long.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::size::format_size;

/// The bit of a mode that lets anybody write.
const ANYBODY: u32 = 0o002;

/// Opens a file for writing, made if it is not there with `mode` less the process's umask, and cut to
/// nothing if `truncate`, and for reading too if not. Below a directory in which anybody can make a link,
/// such as `/tmp`, no link is followed: it may be anybody's, and lead to any file of this user. A pipe that
/// nobody reads is an error, and not waited for.
///
/// # Errors
///
/// The host's, or one that says that there is such a link.
pub(crate) fn open_for_writing(path: &Path, mode: u32, truncate: bool) -> io::Result<File> {
    let absolute = std::path::absolute(path)?;
    match open_directory(&absolute) {
        Some(directory) => {
            let behind = absolute.strip_prefix(&directory).unwrap_or(&absolute);
            let mut flags = OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            flags |= if truncate { OFlags::WRONLY | OFlags::TRUNC } else { OFlags::RDWR };
            let opened = openat2(
                File::open(&directory)?,
                behind,
                flags,
                Mode::from_raw_mode(mode),
                ResolveFlags::NO_SYMLINKS,
            );
            match opened {
                Err(Errno::LOOP) => Err(io::Error::other(format!(
                    "there is a link on the way, and anybody can make one in {}",
                    directory.display()
                ))),
                opened => Ok(opened?.into()),
            }
        }
        None => {
            let mut options = OpenOptions::new();
            options.read(!truncate).write(true).create(true).truncate(truncate).mode(mode);
            options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
        }
    }
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
///
/// The host's, or that the file is larger, in words.
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("it is larger than {}", format_size(most)));
    }
    Ok(bytes)
}

/// The first directory on the way to `path` that anybody can write to.
fn open_directory(path: &Path) -> Option<PathBuf> {
    let mut directories: Vec<&Path> = path.ancestors().skip(1).collect();
    directories.reverse();
    let is_open = |directory: &&Path| {
        fs::metadata(directory).is_ok_and(|found| found.is_dir() && found.mode() & ANYBODY != 0)
    };
    directories.into_iter().find(is_open).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A directory in which anybody can make links.
    struct Open(PathBuf);

    impl Open {
        fn new(name: &str) -> Self {
            let name = format!("cloister-host-file-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
            Self(path)
        }
    }

    impl Drop for Open {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_that_anybody_can_make_are_not_followed() {
        let directory = Open::new("links");
        let precious = directory.0.join("precious");
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, directory.0.join("link")).unwrap();
        symlink(directory.0.join("not-there"), directory.0.join("dangling")).unwrap();
        symlink(&directory.0, directory.0.join("folder")).unwrap();

        for name in ["link", "dangling", "folder/precious"] {
            let error = open_for_writing(&directory.0.join(name), 0o644, true).unwrap_err();

            assert!(error.to_string().starts_with("there is a link on the way"), "{error}");
        }
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert!(!directory.0.join("not-there").exists());
    }

    #[test]
    fn files_are_made_and_written_there() {
        let directory = Open::new("files");
        let path = directory.0.join("file");
        fs::write(&path, "longer than what comes").unwrap();

        open_for_writing(&path, 0o644, true).unwrap().write_all(b"new").unwrap();
        open_for_writing(&directory.0.join("made"), 0o600, false).unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(directory.0.join("made")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn links_elsewhere_are_followed() {
        let directory = Open::new("elsewhere");
        let path = directory.0.join("file");
        let file = File::create(&path).unwrap();

        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        open_for_writing(Path::new(&link), 0o644, false).unwrap().write_all(b"new").unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
