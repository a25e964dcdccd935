//! Locks of disk images, by which two machines, of Cloister or of QEMU, do not write to one disk.
//!
//! QEMU tells what it does with an image by locks of single bytes of it (`block/file-posix.c`, from its
//! version 2.10 on): one for each thing that it does, and one for each that it lets nobody else do.
//! Locks are of the open file, so that a machine which is given one image twice refuses itself.
#![expect(unsafe_code, reason = "locks of open files have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use libc::{F_OFD_GETLK, F_OFD_SETLK, F_RDLCK, F_UNLCK, F_WRLCK, SEEK_SET, c_int, flock};

/// First byte of those that tell what is done.
const DONE: i64 = 100;
/// First byte of those that tell what nobody else may do.
const FORBIDDEN: i64 = 200;

/// Reading contents that are those of one moment.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// What a disk does with its image.
const READS: &[i64] = &[CONSISTENT_READ];
const READS_AND_WRITES: &[i64] = &[CONSISTENT_READ, WRITE];
/// What it lets nobody else do: a guest believes that its disk changes by its own writes alone.
const ALONE: &[i64] = &[WRITE, RESIZE];

/// Why an image is not locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another has it, for writing or for what does not go with writing.
    InUse,
    /// The file system has no such locks.
    Unsupported(io::Error),
}

/// Locks an image as a disk that is written, or only read, for as long as the file is open.
pub(crate) fn lock(image: &File, readonly: bool) -> Result<(), LockError> {
    let done = if readonly { READS } else { READS_AND_WRITES };
    // First all locks and then the look at those of others: of two that begin at once, one sees the
    // other at least.
    for byte in done.iter().map(|action| DONE + action) {
        set(image, byte)?;
    }
    for byte in ALONE.iter().map(|action| FORBIDDEN + action) {
        set(image, byte)?;
    }
    for byte in done.iter().map(|action| FORBIDDEN + action) {
        check(image, byte)?;
    }
    for byte in ALONE.iter().map(|action| DONE + action) {
        check(image, byte)?;
    }
    Ok(())
}

/// A lock of one byte.
fn of_byte(kind: c_int, byte: i64) -> flock {
    // Small constants; the host refuses any other number.
    let [l_type, l_whence] = [kind, SEEK_SET].map(|value| i16::try_from(value).unwrap_or(i16::MAX));
    flock { l_type, l_whence, l_start: byte, l_len: 1, l_pid: 0 }
}

/// Takes the lock of a byte, which others may have too.
fn set(image: &File, byte: i64) -> Result<(), LockError> {
    let wanted = of_byte(F_RDLCK, byte);
    // SAFETY: the kernel reads one structure of its own type.
    match unsafe { libc::fcntl(image.as_raw_fd(), F_OFD_SETLK, &raw const wanted) } {
        0 => Ok(()),
        _ => Err(match io::Error::last_os_error() {
            // Somebody has the byte exclusively, which QEMU never does.
            error if error.kind() == io::ErrorKind::WouldBlock => LockError::InUse,
            error => LockError::Unsupported(error),
        }),
    }
}

/// Whether nobody else has the lock of a byte.
fn check(image: &File, byte: i64) -> Result<(), LockError> {
    let mut found = of_byte(F_WRLCK, byte);
    // SAFETY: the kernel reads and writes one structure of its own type.
    match unsafe { libc::fcntl(image.as_raw_fd(), F_OFD_GETLK, &raw mut found) } {
        0 if c_int::from(found.l_type) == F_UNLCK => Ok(()),
        0 => Err(LockError::InUse),
        _ => Err(LockError::Unsupported(io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::path::PathBuf;

    use super::*;

    struct Image(PathBuf);

    impl Image {
        fn new(name: &str) -> Self {
            let name = format!("cloister-lock-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, [0; 512]).unwrap();
            Self(path)
        }

        fn open(&self, readonly: bool) -> File {
            OpenOptions::new().read(true).write(!readonly).open(&self.0).unwrap()
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn readers_share_an_image_and_a_writer_has_it_alone() {
        for (first, second, together) in
            [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
        {
            let image = Image::new(&format!("{first}-{second}"));
            let one = image.open(first);
            lock(&one, first).unwrap();

            let two = image.open(second);
            let outcome = lock(&two, second);

            let refused = matches!(outcome, Err(LockError::InUse));
            assert_eq!((outcome.is_ok(), refused), (together, !together), "{first} {second}");
        }
    }

    #[test]
    fn a_lock_lasts_as_long_as_its_file() {
        let image = Image::new("lasts");
        let one = image.open(false);
        lock(&one, false).unwrap();
        let copy = one.try_clone().unwrap();
        drop(one);
        let two = image.open(false);

        let while_open = lock(&two, false);
        drop(copy);
        let afterwards = lock(&two, false);

        assert!(matches!(while_open, Err(LockError::InUse)));
        afterwards.unwrap();
    }

    #[test]
    fn what_qemu_locks_is_respected_and_what_is_locked_here_qemu_respects() {
        // QEMU's locks of a raw image that a guest writes: 100 and 101 for what it does, 201 for what
        // nobody else may do. It looks at 200, 201 and 101.
        let image = Image::new("qemu");
        let qemu = image.open(false);
        for byte in [100, 101, 201] {
            set(&qemu, byte).unwrap();
        }
        let ours = image.open(false);
        let refused = lock(&ours, false);
        drop((qemu, ours));

        let ours = image.open(false);
        lock(&ours, false).unwrap();
        let qemu = image.open(false);
        let seen = [200, 201, 101].map(|byte| check(&qemu, byte).is_ok());

        assert!(matches!(refused, Err(LockError::InUse)));
        assert_eq!(seen, [true, false, false]);
    }
}
