//! The calls.
#![expect(unsafe_code, reason = "std hides what is asked here")]

use std::collections::HashMap;
use std::ffi::CString;
use std::io::Error;
use std::mem::zeroed;
use std::ptr::null;

use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, c_int, c_long};

/// The number of an error.
pub(crate) type Errno = c_int;
type Outcome = Result<String, Errno>;

/// Files that are open, by the names that the cases give them.
#[derive(Debug, Default)]
pub(crate) struct Calls(HashMap<String, c_int>);

/// Flags by their names.
const FLAGS: [(&str, c_int); 11] = [
    ("r", libc::O_RDONLY),
    ("w", libc::O_WRONLY),
    ("rw", libc::O_RDWR),
    ("creat", libc::O_CREAT),
    ("excl", libc::O_EXCL),
    ("trunc", libc::O_TRUNC),
    ("append", libc::O_APPEND),
    ("nofollow", libc::O_NOFOLLOW),
    ("directory", libc::O_DIRECTORY),
    ("nonblock", libc::O_NONBLOCK),
    ("noaccess", libc::O_ACCMODE),
];

/// Names of errors.
const ERRORS: [(Errno, &str); 26] = [
    (libc::EACCES, "EACCES"),
    (libc::EBADF, "EBADF"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::EFBIG, "EFBIG"),
    (libc::EINVAL, "EINVAL"),
    (libc::EISDIR, "EISDIR"),
    (libc::ELOOP, "ELOOP"),
    (libc::EMLINK, "EMLINK"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ENXIO, "ENXIO"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EPERM, "EPERM"),
    (libc::EPIPE, "EPIPE"),
    (libc::EROFS, "EROFS"),
    (libc::ESPIPE, "ESPIPE"),
    (libc::ESTALE, "ESTALE"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::EXDEV, "EXDEV"),
    (libc::EOVERFLOW, "EOVERFLOW"),
];

pub(crate) fn error_name(error: Errno) -> String {
    let known = ERRORS.iter().find(|(number, _)| *number == error);
    known.map_or_else(|| format!("errno {error}"), |(_, name)| (*name).to_owned())
}

/// Modes are what the cases say.
pub(crate) fn no_umask() {
    // SAFETY: it takes an integer alone.
    unsafe { libc::umask(0) };
}

fn check(status: c_long) -> Result<c_long, Errno> {
    if status < 0 { Err(Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(status) }
}

fn done(status: c_int) -> Outcome {
    check(status.into()).map(|_| "ok".to_owned())
}

fn text(word: &str) -> CString {
    // The cases have no zero bytes.
    CString::new(word).unwrap_or_default()
}

fn octal(word: &str) -> u32 {
    u32::from_str_radix(word, 8).unwrap_or(0)
}

fn number(word: &str) -> i64 {
    word.parse().unwrap_or(0)
}

fn flags(word: &str) -> c_int {
    let named = |name| FLAGS.iter().find(|(known, _)| *known == name).map_or(0, |(_, flag)| *flag);
    word.split('|').map(named).fold(0, |all, flag| all | flag)
}

impl Calls {
    pub(crate) fn close_all(&mut self) {
        for (_, file) in self.0.drain() {
            // SAFETY: the descriptor is open, and nobody has it any more.
            unsafe { libc::close(file) };
        }
    }

    fn file(&self, name: &str) -> c_int {
        self.0.get(name).copied().unwrap_or(-1)
    }

    /// Makes a call, and says what came of it.
    pub(crate) fn perform(&mut self, words: &[&str]) -> Outcome {
        // SAFETY: all strings end in zero, all structures are whole, and both outlive their calls.
        unsafe {
            match *words {
                ["mkdir", path, mode] => done(libc::mkdir(text(path).as_ptr(), octal(mode))),
                ["rmdir", path] => done(libc::rmdir(text(path).as_ptr())),
                ["unlink", path] => done(libc::unlink(text(path).as_ptr())),
                ["chdir", path] => done(libc::chdir(text(path).as_ptr())),
                ["mkfifo", path, mode] => done(libc::mkfifo(text(path).as_ptr(), octal(mode))),
                ["mknod", path, mode, device] => {
                    done(libc::mknod(text(path).as_ptr(), octal(mode), number(device) as u64))
                }
                ["link", from, to] => done(libc::link(text(from).as_ptr(), text(to).as_ptr())),
                ["symlink", to, path] => {
                    done(libc::symlink(text(to).as_ptr(), text(path).as_ptr()))
                }
                ["rename", from, to] => done(libc::rename(text(from).as_ptr(), text(to).as_ptr())),
                ["renameat2", from, to, how] => {
                    let (from, to) = (text(from), text(to));
                    let how = number(how) as u32;
                    done(libc::renameat2(AT_FDCWD, from.as_ptr(), AT_FDCWD, to.as_ptr(), how))
                }
                ["chmod", path, mode] => done(libc::chmod(text(path).as_ptr(), octal(mode))),
                ["lchown", path, user, group] => done(libc::lchown(
                    text(path).as_ptr(),
                    number(user) as u32,
                    number(group) as u32,
                )),
                ["truncate", path, size] => done(libc::truncate(text(path).as_ptr(), number(size))),
                ["access", path, how] => {
                    done(libc::access(text(path).as_ptr(), number(how) as c_int))
                }
                ["utimens", path, access, modification] => {
                    let time = |seconds| libc::timespec { tv_sec: number(seconds), tv_nsec: 5 };
                    let times = [time(access), time(modification)];
                    let path = text(path);
                    done(libc::utimensat(
                        AT_FDCWD,
                        path.as_ptr(),
                        times.as_ptr(),
                        AT_SYMLINK_NOFOLLOW,
                    ))
                }
                ["touch", path] => done(libc::utimensat(AT_FDCWD, text(path).as_ptr(), null(), 0)),
                ["times", path] => {
                    let found = stat(path)?;
                    Ok(format!("{} {}", found.st_atime, found.st_mtime))
                }
                ["readlink", path] => {
                    let mut target = [0_u8; 5000];
                    let into = target.as_mut_ptr().cast();
                    let size = libc::readlink(text(path).as_ptr(), into, target.len());
                    let size = check(size as c_long)? as usize;
                    Ok(format!("{} bytes", size))
                }
                ["stat", path] => stat(path).map(|found| describe(&found)),
                ["fstat", name] => {
                    let mut found = zeroed();
                    done(libc::fstat(self.file(name), &raw mut found))?;
                    Ok(describe(&found))
                }
                ["open", name, path, how, mode] => {
                    let file = libc::open(text(path).as_ptr(), flags(how), octal(mode));
                    check(file.into())?;
                    self.0.insert(name.to_owned(), file);
                    Ok("ok".to_owned())
                }
                ["close", name] => done(libc::close(self.0.remove(name).unwrap_or(-1))),
                ["write", name, what] => {
                    let file = self.file(name);
                    let count = libc::write(file, what.as_ptr().cast(), what.len());
                    Ok(check(count as c_long)?.to_string())
                }
                ["pread", name, offset, size] => {
                    let mut bytes = vec![0_u8; number(size) as usize];
                    let into = bytes.as_mut_ptr().cast();
                    let count = libc::pread(self.file(name), into, bytes.len(), number(offset));
                    bytes.truncate(check(count as c_long)? as usize);
                    Ok(format!("{:?}", String::from_utf8_lossy(&bytes)))
                }
                ["ftruncate", name, size] => done(libc::ftruncate(self.file(name), number(size))),
                ["fchmod", name, mode] => done(libc::fchmod(self.file(name), octal(mode))),
                ["seek", name, offset, whence] => {
                    let whence = number(whence) as c_int;
                    Ok(check(libc::lseek(self.file(name), number(offset), whence))?.to_string())
                }
                ["fallocate", name, how, offset, size] => {
                    let how = number(how) as c_int;
                    done(libc::fallocate(self.file(name), how, number(offset), number(size)))
                }
                ["fsync", name] => done(libc::fsync(self.file(name))),
                ["list", path] => list(path),
                ["setxattr", path, name, value] => done(libc::setxattr(
                    text(path).as_ptr(),
                    text(name).as_ptr(),
                    value.as_ptr().cast(),
                    value.len(),
                    0,
                )),
                ["flock", name, how] => done(libc::flock(self.file(name), number(how) as c_int)),
                _ => Ok("NO SUCH CALL".to_owned()),
            }
        }
    }
}

fn stat(path: &str) -> Result<libc::stat, Errno> {
    // SAFETY: all zeros are a valid structure.
    let mut found = unsafe { zeroed() };
    // SAFETY: the string ends in zero, and the kernel writes one structure.
    check(unsafe { libc::lstat(text(path).as_ptr(), &raw mut found) }.into())?;
    Ok(found)
}

/// Kind and mode, links of what is no folder, size of what has one that is said.
fn describe(found: &libc::stat) -> String {
    let kind = found.st_mode & libc::S_IFMT;
    let is_folder = kind == libc::S_IFDIR;
    let links = if is_folder { 0 } else { found.st_nlink };
    let size = if is_folder { 0 } else { found.st_size };
    format!("{:06o} links {links} size {size}", found.st_mode)
}

fn list(path: &str) -> Outcome {
    let number = |error: Error| error.raw_os_error().unwrap_or(0);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(number)? {
        let name = entry.map_err(number)?.file_name();
        names.push(name.to_string_lossy().chars().take(20).collect::<String>());
    }
    names.sort();
    Ok(names.join(" "))
}
