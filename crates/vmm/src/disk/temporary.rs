//! Files that end with the process.

use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags, open, unlink};
use rustix::rand::{GetRandomFlags, getrandom};

/// Where they are: on a disk, since they may become large. QEMU's place.
const FOLDER: &str = "/var/tmp";

/// An empty file for reading and writing, which has no name any more. (Not every file system makes files
/// that never had one.)
pub(super) fn file() -> io::Result<File> {
    let mut number = [0; 8];
    getrandom(&mut number, GetRandomFlags::empty())?;
    let path = format!("{FOLDER}/cloister-disk-{:016x}", u64::from_ne_bytes(number));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    unlink(&path)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn a_file_has_no_name_and_is_written() {
        let file = file().unwrap();

        file.write_all_at(b"text", 0).unwrap();

        let found = file.metadata().unwrap();
        assert_eq!((found.nlink(), found.len(), found.mode() & 0o777), (0, 4, 0o600));
    }
}
