//! Landlock (landlock(7)): what the kernel itself takes away, where it can, besides the filters.
#![expect(unsafe_code, reason = "the system calls have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use libc::{
    SYS_landlock_add_rule, SYS_landlock_create_ruleset, SYS_landlock_restrict_self, c_long, syscall,
};
use rustix::fs::{FileType, fstat};
use rustix::thread::set_no_new_privs;

/// `struct landlock_ruleset_attr` (include/uapi/linux/landlock.h).
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: u32 = 1;

/// What each version of the interface handles: rights to files, to TCP ports, and scopes.
const fn rights(version: c_long) -> RulesetAttributes {
    let files = match version {
        // Execution to making symbolic links; then renames across folders, truncation, and ioctl(2)
        // of devices.
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    RulesetAttributes {
        handled_access_fs: (1 << files) - 1,
        // Bind and connect.
        handled_access_net: if version >= 4 { 0b11 } else { 0 },
        // Abstract Unix sockets, and signals to others.
        scoped: if version >= 6 { 0b11 } else { 0 },
    }
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;
/// To open files for reading, and to list folders.
const READ: u64 = 0b1100;
/// The rights to a file that is no folder: execution, writing, reading, truncation, ioctl(2) of a device.
const FILE: u64 = 0b1100_0000_0000_0111;

/// Takes from the calling thread, and from those that it will start, every right that Landlock knows:
/// no file can be opened, made or removed by its name. What is open stays open. Returns the version of
/// the kernel's interface; `None` where there is none.
pub(super) fn restrict() -> io::Result<Option<c_long>> {
    restrict_to([].into_iter())
}

/// As the machine's process is restricted, but below these folders, and for these files, each of which may be
/// written or only read.
///
/// # Errors
///
/// The kernel has Landlock, and refuses it.
pub(crate) fn confine_to_folders<'a>(
    folders: impl Iterator<Item = (BorrowedFd<'a>, bool)>,
) -> io::Result<()> {
    restrict_to(folders).map(drop)
}

fn restrict_to<'a>(
    folders: impl Iterator<Item = (BorrowedFd<'a>, bool)>,
) -> io::Result<Option<c_long>> {
    let none = std::ptr::null::<RulesetAttributes>();
    // SAFETY: a null pointer of no length asks for the version.
    let version = unsafe { syscall(SYS_landlock_create_ruleset, none, 0_usize, ASK_VERSION) };
    if version < 1 {
        return Ok(None);
    }
    let attributes = rights(version);
    // Older kernels want the fields that they do not know to be zero, as they are.
    let size = size_of_val(&attributes);
    // SAFETY: the kernel reads `size` bytes of a structure of that size.
    let ruleset =
        unsafe { syscall(SYS_landlock_create_ruleset, &raw const attributes, size, 0_u32) };
    let ruleset = match RawFd::try_from(ruleset) {
        // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
        Ok(descriptor @ 0..) => unsafe { OwnedFd::from_raw_fd(descriptor) },
        _ => return Err(io::Error::last_os_error()),
    };
    for (folder, writable) in folders {
        let allowed_access = if writable { attributes.handled_access_fs } else { READ };
        let is_folder = FileType::from_raw_mode(fstat(folder)?.st_mode) == FileType::Directory;
        let allowed_access = if is_folder { allowed_access } else { allowed_access & FILE };
        let rule = PathBeneath { allowed_access, parent_fd: folder.as_raw_fd() };
        let (at, rule) = (ruleset.as_raw_fd(), &raw const rule);
        // SAFETY: the kernel reads one structure of its own type.
        if unsafe { syscall(SYS_landlock_add_rule, at, PATH_BENEATH, rule, 0_u32) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    set_no_new_privs(true)?;
    // SAFETY: it takes integers alone.
    match unsafe { syscall(SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) } {
        0 => Ok(Some(version)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_restricted_thread_opens_makes_and_removes_nothing_and_keeps_what_it_has() {
        let path = std::env::temp_dir().join(format!("cloister-landlock-{}", std::process::id()));
        let mut open = File::create(&path).unwrap();

        let restricted = thread::spawn({
            let path = path.clone();
            move || {
                let version = restrict().unwrap()?;
                let refused = [
                    File::open(&path).err(),
                    File::create(path.with_extension("new")).err(),
                    std::fs::remove_file(&path).err(),
                    TcpListener::bind("127.0.0.1:0").err().filter(|_| version >= 4),
                ];
                open.write_all(b"still open").unwrap();
                Some((version, refused.map(|error| error.map(|error| error.kind()))))
            }
        });
        let restricted = restricted.join().unwrap();

        let denied = Some(io::ErrorKind::PermissionDenied);
        // A kernel without Landlock leaves all to the filters.
        if let Some((version, refused)) = restricted {
            let by_port = if version >= 4 { denied } else { None };
            assert_eq!(refused, [denied, denied, denied, by_port], "{version}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"still open");
        std::fs::remove_file(&path).unwrap();
    }
}
