//! The process that serves folders.
//!
//! It has the folders open and nothing else, sees neither the guest's memory nor the machine's files, and can
//! do no more than what [`cloister_fs`] asks of the host. Landlock, where the kernel has it, says the same of
//! what is below the folders once more.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cloister_fs::{MAX_IO, Server, Share};
use libc::c_long;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketType, recv, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

use super::Folder;
use crate::{sandbox, side_process};

/// Bytes before a request: its number and the room for the reply.
const PREFIX: usize = 16;
/// How long to wait for memory that the host does not have now.
const RETRY: Duration = Duration::from_millis(1);
/// Bytes of a request at most.
const MESSAGE: usize = PREFIX + MAX_IO as usize + (8 << 10);

/// What the process asks of the host, beyond what every thread may. Modes, owners and times are changed on
/// open files alone, which Landlock lets happen anywhere.
const CALLS: &[c_long] = &[
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    sandbox::TIMES_OF_OPEN_FILES,
];

/// The way to the process.
#[derive(Clone, Debug)]
pub struct FileServer(Arc<OwnedFd>);

impl FileServer {
    /// Starts a process that serves the only one of `folders`, or a folder of `several`.
    ///
    /// # Errors
    ///
    /// The host gives no sockets or no process.
    ///
    /// # Safety
    ///
    /// The process has one thread, as for [`crate::daemon::detach`].
    #[expect(unsafe_code, reason = "hands the promise of one thread on")]
    pub unsafe fn start(folders: Vec<Folder>, several: bool, confined: bool) -> io::Result<Self> {
        let kept: Vec<RawFd> = folders.iter().map(|folder| folder.file.as_raw_fd()).collect();
        let serve = |socket: &OwnedFd| serve(folders, several, confined, socket);
        // SAFETY: the caller says that there is one thread.
        let socket =
            unsafe { side_process::start(c"cloister-files", SocketType::SEQPACKET, &kept, serve) }?;
        Ok(Self(Arc::new(socket)))
    }

    /// The machine's end.
    #[must_use]
    pub fn socket(&self) -> Arc<OwnedFd> {
        self.0.clone()
    }
}

/// The life of the process.
fn serve(folders: Vec<Folder>, several: bool, confined: bool, socket: &OwnedFd) -> io::Result<()> {
    // The modes of new files are the guest's, which has a umask of its own.
    umask(Mode::empty());
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let descriptors =
        open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if confined {
        let rights = folders.iter().map(|folder| (folder.file.as_fd(), folder.writable));
        sandbox::confine_to_folders(rights)?;
        sandbox::confine_process(CALLS).map_err(io::Error::other)?;
    }
    let shares = folders.into_iter().map(|folder| {
        Share::new(folder.name, folder.file, folder.writable).valid_for(folder.valid)
    });
    let nodes =
        files.maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let server = Server::new(shares.collect(), several, descriptors);
    // The others are for what the guest has open.
    let mut server = server.with_nodes_open(nodes / 2);
    let mut message = vec![0; MESSAGE];
    let mut reply = Vec::new();
    loop {
        let len = match recv(socket, &mut message[..], RecvFlags::empty()) {
            Ok((len, _)) if len >= PREFIX => len,
            Err(Errno::INTR) => continue,
            _ => return Ok(()),
        };
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|index| message[at + index]));
        let (number, room) = (word(0).to_ne_bytes(), word(8));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        server.answer(&message[PREFIX..len], room, &mut reply);
        let parts = [IoSlice::new(&number), IoSlice::new(&reply)];
        let mut none = SendAncillaryBuffer::default();
        while let Err(error) = sendmsg(socket, &parts, &mut none, SendFlags::NOSIGNAL) {
            match error {
                Errno::INTR => {}
                // The host is short of memory: a reply is one message, for which it wants much at once.
                Errno::NOBUFS | Errno::NOMEM => thread::sleep(RETRY),
                error => return Err(error.into()),
            }
        }
    }
}
