//! Files that the commands read and write.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use super::AttestationError;
use crate::host_file::read_at_most;

/// More than any quote, certificate or list has: what is longer is something else.
const LONGEST: u64 = 1 << 20;

/// Reads the file that `option` names and which is to be `what`.
pub(super) fn read(
    option: &'static str,
    path: &Path,
    what: &'static str,
) -> Result<Vec<u8>, AttestationError> {
    read_at_most(path, LONGEST).map_err(|why| AttestationError::Read {
        option,
        path: path.into(),
        why,
        what,
    })
}

/// Writes a file so that whoever reads it meanwhile reads what was there or what is there then.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), AttestationError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let written = write_all(draft.as_ref(), bytes).and_then(|()| fs::rename(&draft, path));
    written.map_err(|reason| {
        // Whether it is there or not: it is of no use.
        let _ = fs::remove_file(&draft);
        AttestationError::Write { path: path.into(), reason }
    })
}

/// Writes a new file: whatever has its name, such as a link that somebody has put there, is taken away.
fn write_all(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let make = || OpenOptions::new().write(true).create_new(true).open(path);
    let made = make().or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => fs::remove_file(path).and_then(|()| make()),
        _ => Err(error),
    });
    made?.write_all(bytes)
}
