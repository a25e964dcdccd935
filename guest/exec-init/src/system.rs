//! The system calls of a PID 1.
#![expect(unsafe_code, reason = "std has no form of them")]

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr::null;

fn check(status: i64) -> Result<()> {
    if status < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn text(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn owned(descriptor: i32) -> Result<OwnedFd> {
    check(descriptor.into())?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// mount(2).
pub(crate) fn mount(
    source: &str,
    place: &str,
    kind: &str,
    flags: u64,
    options: &str,
) -> Result<()> {
    let [source, place, kind, options] = [source, place, kind, options].map(CString::new);
    let (source, place, kind, options) = (source?, place?, kind?, options?);
    // SAFETY: the strings end in zero and outlive the call.
    check(
        unsafe {
            libc::mount(
                source.as_ptr(),
                place.as_ptr(),
                kind.as_ptr(),
                flags,
                options.as_ptr().cast(),
            )
        }
        .into(),
    )
}

/// umount(2).
pub(crate) fn unmount(place: &str) -> Result<()> {
    let place = CString::new(place)?;
    // SAFETY: the string ends in zero and outlives the call.
    check(unsafe { libc::umount(place.as_ptr()) }.into())
}

/// Shows a folder or a file at another place too.
pub(crate) fn bind(source: &Path, place: &Path, flags: u64) -> Result<()> {
    let (source, place) = (text(source)?, text(place)?);
    let flags = libc::MS_BIND | flags;
    // SAFETY: the strings end in zero and outlive the call.
    check(unsafe { libc::mount(source.as_ptr(), place.as_ptr(), null(), flags, null()) }.into())
}

/// Gives a mount other flags (MS_RDONLY and its like).
pub(crate) fn remount(place: &Path, flags: u64) -> Result<()> {
    let place = text(place)?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | flags;
    // SAFETY: the string ends in zero and outlives the call.
    check(unsafe { libc::mount(null(), place.as_ptr(), null(), flags, null()) }.into())
}

/// Makes a character device that everybody may use, whatever the umask.
pub(crate) fn make_device(place: &Path, device: u64) -> Result<()> {
    let place = text(place)?;
    // SAFETY: the string ends in zero and outlives the calls.
    unsafe {
        check(libc::mknod(place.as_ptr(), libc::S_IFCHR | 0o666, device).into())?;
        check(libc::chmod(place.as_ptr(), 0o666).into())
    }
}

/// Makes a mounted folder the root. The initramfs cannot be left otherwise: pivot_root(2) refuses it.
pub(crate) fn move_root(place: &str) -> Result<()> {
    std::env::set_current_dir(place)?;
    // SAFETY: the strings end in zero and outlive the calls.
    unsafe {
        check(libc::mount(c".".as_ptr(), c"/".as_ptr(), null(), libc::MS_MOVE, null()).into())?;
        check(libc::chroot(c".".as_ptr()).into())?;
    }
    std::env::set_current_dir("/")
}

/// finit_module(2) without parameters. A module that the kernel has already is as good.
pub(crate) fn load_module(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open and the parameters are an empty string.
    let status =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match check(status) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        loaded => loaded,
    }
}

/// Shuts half of a socket down; what is not a socket is left as it is.
pub(crate) fn shut_down(file: &File, how: i32) {
    // SAFETY: it takes integers alone.
    unsafe { libc::shutdown(file.as_raw_fd(), how) };
}

/// A terminal: its own end and the program's.
pub(crate) fn open_terminal() -> Result<(OwnedFd, OwnedFd)> {
    let (mut own, mut program) = (0, 0);
    // SAFETY: the kernel's library writes two integers, and nothing else is asked of it.
    let status = unsafe {
        libc::openpty(
            &raw mut own,
            &raw mut program,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    check(status.into())?;
    let (own, program) = (owned(own)?, owned(program)?);
    // SAFETY: it takes integers alone.
    check(unsafe { libc::fcntl(own.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    Ok((own, program))
}

/// Tells a terminal its size.
pub(crate) fn resize(terminal: &File, rows: u32, columns: u32) {
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let size =
        libc::winsize { ws_row: short(rows), ws_col: short(columns), ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads a winsize.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
}

/// Has `prepare` done in the child, between fork and execve.
pub(crate) fn before_exec(
    command: &mut Command,
    prepare: impl FnMut() -> Result<()> + Send + Sync + 'static,
) {
    // SAFETY: `prepare` makes system calls alone: it takes no lock and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Makes the calling process the leader of a session, whose terminal is its standard input if it has one.
pub(crate) fn new_session(terminal: bool) -> Result<()> {
    // SAFETY: both take integers alone.
    unsafe {
        check(libc::setsid().into())?;
        if terminal {
            check(libc::ioctl(0, libc::TIOCSCTTY, 0).into())?;
        }
    }
    Ok(())
}

/// Takes user, group and further groups.
pub(crate) fn become_user(ids: &[u32]) -> Result<()> {
    let [user, group, groups @ ..] = ids else {
        return Err(Error::from_raw_os_error(libc::EINVAL));
    };
    // SAFETY: the kernel reads so many groups.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()).into())?;
        check(libc::setresgid(*group, *group, *group).into())?;
        check(libc::setresuid(*user, *user, *user).into())
    }
}

pub(crate) fn set_umask(mask: u32) {
    // SAFETY: it takes an integer alone.
    unsafe { libc::umask(mask) };
}

/// Sends a signal to a process, to a group of them (a negative number), or to all (-1).
pub(crate) fn kill(process: i32, signal: i32) {
    // SAFETY: it takes integers alone.
    unsafe { libc::kill(process, signal) };
}

/// Waits for all children, as a PID 1 has to, until this one ends. Returns its status.
pub(crate) fn reap_until(process: i32) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one integer.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if ended == process {
            return status;
        }
    }
}

/// Brings the interface `lo` up. A machine without one has no addresses of its own.
pub(crate) fn bring_loopback_up() {
    // SAFETY: all zeros are a valid request.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: it takes integers alone.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) });
    if let Ok(socket) = socket {
        // SAFETY: the kernel reads a request of its own type.
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    }
}

/// A socket of rtnetlink(7).
#[derive(Debug)]
pub(crate) struct RouteSocket(File);

pub(crate) fn route_socket() -> Result<RouteSocket> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: it takes integers alone.
    let socket = owned(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
    Ok(RouteSocket(socket.into()))
}

impl RouteSocket {
    /// Sends a request to the kernel and returns its answer. A message that is written goes to the kernel, and
    /// one that is read is whole.
    pub(crate) fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        (&self.0).write_all(request)?;
        let mut answer = vec![0; 8192];
        let len = (&self.0).read(&mut answer)?;
        answer.truncate(len);
        Ok(answer)
    }
}

pub(crate) fn set_host_name(name: &str) {
    // SAFETY: the kernel reads so many bytes.
    unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
}

/// Writes out what is kept in memory.
pub(crate) fn sync() {
    // SAFETY: it takes nothing.
    unsafe { libc::sync() };
}

/// Ends the machine.
pub(crate) fn power_off() {
    // SAFETY: nothing of the machine needs to survive. The last lines of the console are still in the
    // driver's buffer.
    unsafe {
        libc::tcdrain(1);
        libc::reboot(libc::RB_POWER_OFF);
    }
}
