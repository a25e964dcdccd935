//! A second process that removes its files: sockets and the pidfile.
//!
//! A confined process may remove no name, since a filter cannot tell one name from another. So it tells
//! another which files are its own while it makes them, before the guest runs, and afterwards can only
//! ask for one of those to be removed. They are removed too when the process ends, in whatever way.

#![expect(unsafe_code, reason = "forks while there is one thread")]

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::NamedFile;
use crate::daemon::{Fork, fork};
use crate::side_process;

/// Length of a path, at most (PATH_MAX).
const MAX_PATH: usize = 4096;
/// How long the answer of the keeper is waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };

/// What the keeper is told.
const KEEP: u8 = b'K';
const SEAL: u8 = b'S';
const REMOVE: u8 = b'R';

/// The way to the keeper.
struct Keeper {
    requests: PipeWriter,
    answers: PipeReader,
    kept: u8,
}

static KEEPER: OnceLock<Mutex<Keeper>> = OnceLock::new();

/// Starts the keeper, which from then on removes each [`OwnFile`](super::OwnFile) that is made.
///
/// # Errors
///
/// The host gives no pipe or no process.
///
/// # Safety
///
/// The process has one thread, as for [`crate::daemon::detach`].
pub unsafe fn start_keeper() -> io::Result<()> {
    let (asked, requests) = pipe()?;
    let (answers, answered) = pipe()?;
    // SAFETY: the caller says that there is one thread.
    match unsafe { fork() }? {
        Fork::Parent => {
            let keeper = Keeper { requests, answers, kept: 0 };
            KEEPER.set(Mutex::new(keeper)).map_err(|_| io::ErrorKind::AlreadyExists.into())
        }
        Fork::Child(child) => {
            drop((requests, answers));
            // Nobody is left to tell.
            let _ = serve(asked, answered);
            child.end()
        }
    }
}

fn lock() -> Option<MutexGuard<'static, Keeper>> {
    Some(KEEPER.get()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Hands a file to the keeper, if there is one, and returns its number.
pub(super) fn keep(file: &NamedFile) -> io::Result<Option<u8>> {
    let Some(mut keeper) = lock() else { return Ok(None) };
    let number = keeper.kept;
    keeper.kept = number.checked_add(1).ok_or(io::ErrorKind::QuotaExceeded)?;
    let path = file.path.as_os_str().as_bytes();
    let mut request = vec![KEEP];
    request.extend(u32::try_from(path.len()).unwrap_or(u32::MAX).to_ne_bytes());
    request.extend(path);
    request.extend(file.identity.0.to_ne_bytes());
    request.extend(file.identity.1.to_ne_bytes());
    keeper.requests.write_all(&request)?;
    Ok(Some(number))
}

/// No further file is kept: what the process says from now on may be a guest's word.
pub(crate) fn seal() -> io::Result<()> {
    match lock() {
        Some(mut keeper) => keeper.requests.write_all(&[SEAL]),
        None => Ok(()),
    }
}

/// Has a file removed, and waits a moment until it is.
pub(super) fn remove(number: u8) -> io::Result<()> {
    let Some(mut keeper) = lock() else { return Ok(()) };
    keeper.requests.write_all(&[REMOVE, number])?;
    match poll(&mut [PollFd::new(&keeper.answers, PollFlags::IN)], Some(&PATIENCE)) {
        Ok(1) => keeper.answers.read_exact(&mut [0]),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The keeper's life: it has nothing open but the two pipes, and no directory.
fn serve(mut asked: PipeReader, mut answered: PipeWriter) -> io::Result<()> {
    side_process::prepare(c"cloister-keeper", &[asked.as_raw_fd(), answered.as_raw_fd()])?;
    let mut files = Vec::new();
    // Err: the machine's process has ended, or said what has no meaning.
    let _ = obey(&mut asked, &mut answered, &mut files);
    files.iter().try_for_each(NamedFile::remove)
}

/// Does what is asked until there is nobody to ask.
fn obey(
    asked: &mut impl Read,
    answered: &mut impl Write,
    files: &mut Vec<NamedFile>,
) -> io::Result<()> {
    let mut sealed = false;
    loop {
        match take(asked)? {
            [KEEP] if !sealed => files.push(read_file(asked)?),
            [SEAL] => sealed = true,
            [REMOVE] => {
                let [number] = take(asked)?;
                if let Some(file) = files.get(usize::from(number)) {
                    // It is left there: the machine's process has no better way.
                    let _ = file.remove();
                }
                answered.write_all(&[0])?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn take<const N: usize>(asked: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    asked.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_file(asked: &mut impl Read) -> io::Result<NamedFile> {
    let length = u32::from_ne_bytes(take(asked)?) as usize;
    if length > MAX_PATH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; length];
    asked.read_exact(&mut path)?;
    let identity = (u64::from_ne_bytes(take(asked)?), u64::from_ne_bytes(take(asked)?));
    Ok(NamedFile { path: OsString::from_vec(path).into(), identity })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::own_file::identity;

    fn kept(path: &Path) -> Vec<u8> {
        let name = path.as_os_str().as_bytes();
        let (device, inode) = identity(path).unwrap();
        let mut request = vec![KEEP];
        request.extend((name.len() as u32).to_ne_bytes());
        request.extend(name);
        request.extend(device.to_ne_bytes());
        request.extend(inode.to_ne_bytes());
        request
    }

    #[test]
    fn only_files_named_before_the_seal_are_removed_and_only_while_they_are_the_same() {
        let folder = std::env::temp_dir().join(format!("cloister-keeper-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [own, replaced, foreign] = ["own", "replaced", "foreign"].map(|name| {
            let path = folder.join(name);
            fs::write(&path, name).unwrap();
            path
        });
        let requests = [kept(&own), kept(&replaced), vec![SEAL]].concat();
        let late = [&requests[..], &kept(&foreign), &[REMOVE, 2]].concat();
        // Beside it, so that it has another inode.
        fs::write(folder.join("new"), "new").unwrap();
        fs::rename(folder.join("new"), &replaced).unwrap();

        let mut files = Vec::new();
        let mut answers = Vec::new();
        let removals = [&requests[..], &[REMOVE, 0, REMOVE, 1, REMOVE, 2]].concat();
        let end = obey(&mut &removals[..], &mut answers, &mut files).unwrap_err();
        let refused = obey(&mut &late[..], &mut Vec::new(), &mut Vec::new()).unwrap_err();

        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert_eq!(answers.len(), 3);
        assert!(!own.exists() && replaced.exists() && foreign.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
