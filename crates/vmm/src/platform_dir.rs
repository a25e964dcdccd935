//! `--platform`: a directory that makes machines one SGX platform, today and tomorrow.
//!
//! It holds the file `identity`, which is made on first use and only read afterwards, and the file
//! `provision`, which is made with it and which machines that give their guest the provisioning key
//! must be able to open. See docs/platform.md.

mod provision;

pub use provision::{ProvisionError, provisioning_right};

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cloister_sgx::PlatformFuses;
use rustix::process::geteuid;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The platform's keys.
const IDENTITY: &str = "identity";
/// The authority over the provisioning key; empty.
const PROVISION: &str = "provision";
/// What certificates have been revoked.
pub(crate) const REVOKED: &str = "revoked";
/// What the file begins with, up to the number of its version.
const TITLE: &str = "cloister platform identity ";
/// The version that is written and read.
const VERSION: &str = "1";
/// More than any version of the file has.
const MAX_FILE: u64 = 4096;
/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;
/// Root's number.
const ROOT: u32 = 0;
/// How often to look whether the directory is still locked, and the pause before looking again.
const LOCK_TRIES: u32 = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why a directory cannot be a platform. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum PlatformDirError {
    /// The directory is not there and cannot be made.
    #[error("cannot make {path}: {reason}: name a directory in one that can be written", path = .0.display(), reason = .1)]
    Make(PathBuf, io::Error),
    /// The path is something else.
    #[error("{path} is not a directory: name one, or a path where it can be made", path = .0.display())]
    NotADirectory(PathBuf),
    /// There is no platform, and none is to be made.
    #[error("there is no platform in {path}: name the directory that a machine was given", path = .0.display())]
    Missing(PathBuf),
    /// Others may look into the directory of a platform or at its file.
    #[error("{path} is open to others (mode {mode:03o}): name one that is not, or run chmod {fix} {path}", path = .path.display())]
    Open {
        /// The directory or the file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What to make of them.
        fix: &'static str,
    },
    /// Others may look into a directory that does not hold a platform, and whose mode has its reasons.
    #[error("{path} is not a platform, and open to others (mode {mode:03o}): name a directory of its own, such as {path}/platform", path = .path.display())]
    NoPlatform {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The directory or the file is another user's, who could change it.
    #[error("{path} belongs to another user (number {owner}): name a directory of your own", path = .path.display())]
    Owner {
        /// The directory or the file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}: make it readable for this user, or name another directory", path = .0.display(), reason = .1)]
    Read(PathBuf, io::Error),
    /// The file cannot be made.
    #[error("cannot write {path}: {reason}: make the directory writable, or name another", path = .0.display(), reason = .1)]
    Write(PathBuf, io::Error),
    /// The file is of a version of another Cloister.
    #[error("{path} has version {version:?} and this is a Cloister for version 1: use the one that made it, or name another directory", path = .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// The file is not as it was written.
    #[error("{path} is damaged: restore it, or name another directory", path = .0.display())]
    Damaged(PathBuf),
    /// The host's random source does not answer.
    #[error("cannot draw an identity: {0}: make /dev/urandom readable")]
    Random(io::Error),
}

/// The identity that the directory `path` holds; made, with the directory, where there is none.
/// Several machines may do so at the same time: all get the same.
///
/// # Errors
///
/// [`PlatformDirError`].
pub fn open(path: &Path) -> Result<PlatformFuses, PlatformDirError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_directory(path)?,
        Err(error) => return Err(PlatformDirError::Make(path.to_owned(), error)),
    }
    // Whoever makes the platform has the directory locked.
    let _locked = lock(path).inspect(|_| remove_drafts(path));
    let file = path.join(IDENTITY);
    match read(&file) {
        Err(PlatformDirError::Read(_, error)) if error.kind() == ErrorKind::NotFound => {
            // First, so that a platform that has its identity lacks it only by its owner's will.
            make_provision(&provision_file(path))?;
            make(path, &file)?;
            // Another machine's, if that was faster.
            read(&file)
        }
        outcome => outcome,
    }
}

/// The identity that the directory `path` holds. Nothing is made.
///
/// # Errors
///
/// [`PlatformDirError`], among them [`PlatformDirError::Missing`].
pub fn open_existing(path: &Path) -> Result<PlatformFuses, PlatformDirError> {
    match fs::symlink_metadata(path.join(IDENTITY)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(PlatformDirError::Missing(path.to_owned()))
        }
        _ => open(path),
    }
}

/// The files of the platform in `directory`, which no other file may take the place of.
pub(crate) fn own_files(directory: &Path) -> [PathBuf; 3] {
    [IDENTITY, PROVISION, REVOKED].map(|name| directory.join(name))
}

/// The file that is the authority over the provisioning key of the platform in `directory`.
#[must_use]
pub fn provision_file(directory: &Path) -> PathBuf {
    directory.join(PROVISION)
}

fn make_provision(path: &Path) -> Result<(), PlatformDirError> {
    match write(path, "") {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(PlatformDirError::Write(path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

fn check_directory(path: &Path) -> Result<(), PlatformDirError> {
    let metadata =
        fs::metadata(path).map_err(|error| PlatformDirError::Make(path.to_owned(), error))?;
    if !metadata.is_dir() {
        return Err(PlatformDirError::NotADirectory(path.to_owned()));
    }
    check_owner(path, &metadata)?;
    if metadata.mode() & OTHERS != 0 && !is_platform(path) {
        let mode = metadata.mode() & 0o777;
        return Err(PlatformDirError::NoPlatform { path: path.to_owned(), mode });
    }
    check_mode(path, metadata.mode(), "700")
}

/// Whether the directory has what this module writes, by this user's hand.
fn is_platform(path: &Path) -> bool {
    let mut start = [0; TITLE.len()];
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path.join(IDENTITY));
    options.is_ok_and(|file| {
        let own = file.metadata().is_ok_and(|found| found.is_file() && found.uid() == user());
        own && file.read_exact_at(&mut start, 0).is_ok() && start == TITLE.as_bytes()
    })
}

/// The user whose rights the process has.
fn user() -> u32 {
    geteuid().as_raw()
}

/// Root may do anything anyhow; any other user may replace what is theirs.
fn check_owner(path: &Path, found: &Metadata) -> Result<(), PlatformDirError> {
    match found.uid() {
        ROOT => Ok(()),
        owner if owner == user() => Ok(()),
        owner => Err(PlatformDirError::Owner { path: path.to_owned(), owner }),
    }
}

/// Locks the directory, for which this waits a moment while another makes a platform of it. Without a
/// lock everything works as well, except that leftovers of others cannot be told from what they are making.
pub(crate) fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    for _ in 0..LOCK_TRIES {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// Removes the drafts of machines that were killed before they could.
fn remove_drafts(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(IDENTITY)?.strip_prefix('.'));
        let is_draft = digits.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if is_draft && let Err(error) = fs::remove_file(entry.path()) {
            // In a directory that can only be read it does no harm.
            tracing::debug!(path = %entry.path().display(), %error, "a draft stays");
        }
    }
}

fn check_mode(path: &Path, mode: u32, fix: &'static str) -> Result<(), PlatformDirError> {
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(PlatformDirError::Open { path: path.to_owned(), mode: mode & 0o777, fix })
}

fn read(path: &Path) -> Result<PlatformFuses, PlatformDirError> {
    let unreadable = |error| PlatformDirError::Read(path.to_owned(), error);
    let damaged = || PlatformDirError::Damaged(path.to_owned());
    // A pipe in the file's place does not make the machine wait.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(damaged());
    }
    check_owner(path, &metadata)?;
    check_mode(path, metadata.mode(), "600")?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|_| damaged())?;
    let (title, _) = text.split_once('\n').ok_or_else(damaged)?;
    let version = title.strip_prefix(TITLE).ok_or_else(damaged)?;
    if version != VERSION {
        let version = version.chars().take(20).collect();
        return Err(PlatformDirError::Version { path: path.to_owned(), version });
    }
    parse(&text).ok_or_else(damaged)
}

/// Writes the file under another name, and gives it its own once it is whole. A file of that name
/// that is there by then stays.
fn make(directory: &Path, path: &Path) -> Result<(), PlatformDirError> {
    let text = print(&PlatformFuses::draw().map_err(PlatformDirError::Random)?);
    let draft = draft_name(directory)?;
    let written = write(&draft, &text).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    });
    let removed = fs::remove_file(&draft);
    written.map_err(|error| PlatformDirError::Write(path.to_owned(), error))?;
    removed.map_err(|error| PlatformDirError::Write(draft, error))?;
    // The name lasts too.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| PlatformDirError::Write(path.to_owned(), error))
}

/// A name that no other machine uses.
fn draft_name(directory: &Path) -> Result<PathBuf, PlatformDirError> {
    let random = PlatformFuses::draw().map_err(PlatformDirError::Random)?.owner_epoch;
    Ok(directory.join(format!("{IDENTITY}.{}", hex(&random))))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The names of the values, in the order of their lines.
const NAMES: [&str; 4] = ["root-key", "seal-fuses", "owner-epoch", "cpusvn"];

fn print(fuses: &PlatformFuses) -> String {
    let values = [fuses.root_key, fuses.seal_fuses, fuses.owner_epoch, fuses.cpusvn];
    let mut text = format!("{TITLE}{VERSION}\n");
    for (name, value) in NAMES.iter().zip(values) {
        text += &format!("{name} {}\n", hex(&value));
    }
    let sum = Sha256::digest(&text);
    text + &format!("sha256 {}\n", hex(&sum))
}

fn parse(text: &str) -> Option<PlatformFuses> {
    let mut lines = text.lines().skip(1);
    let mut values = [[0; 16]; NAMES.len()];
    for (name, value) in NAMES.iter().zip(&mut values) {
        *value = unhex(lines.next()?.strip_prefix(name)?.strip_prefix(' ')?)?;
    }
    let [root_key, seal_fuses, owner_epoch, cpusvn] = values;
    let fuses = PlatformFuses { root_key, seal_fuses, owner_epoch, cpusvn };
    // The sum is right and nothing else is there.
    (print(&fuses) == text).then_some(fuses)
}

/// Two lower-case hexadecimal digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads `N` bytes, two hexadecimal digits each.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
