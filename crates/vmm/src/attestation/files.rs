//! Files that the commands read and write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::AttestationError;

/// More than any quote, certificate or list has: what is longer is something else.
const LONGEST: u64 = 1 << 20;

/// Reads the file that `option` names and which is to be `what`.
pub(super) fn read(
    option: &'static str,
    path: &Path,
    what: &'static str,
) -> Result<Vec<u8>, AttestationError> {
    let unreadable = |why: String| AttestationError::Read { option, path: path.into(), why, what };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > LONGEST {
        return Err(unreadable("it is larger than 1M".into()));
    }
    Ok(bytes)
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
