//! The terminal of a container: a pair of which the engine gets one end by a socket, and this process has the other
//! for its standard streams.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::cmsg_space;
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// The end that is the process's.
#[derive(Debug)]
pub(super) struct Terminal(OwnedFd);

impl Terminal {
    /// Makes the pair, and sends the engine its end (runc, docs/terminals.md, "Detached").
    pub(super) fn send(socket: &Path) -> Result<Self, String> {
        let wrong = |what: &'static str| {
            move |error: io::Error| {
                format!("--console-socket: {what} {}: {error}", socket.display())
            }
        };
        let pair = || -> io::Result<(OwnedFd, OwnedFd, Vec<u8>)> {
            let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&own)?;
            unlockpt(&own)?;
            let name = ptsname(&own, Vec::new())?;
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            let other = open(&name, flags, Mode::empty())?;
            Ok((own, other, name.into_bytes()))
        };
        let (engines, process, name) = pair().map_err(wrong("the host gives no terminal for"))?;
        let stream = UnixStream::connect(socket).map_err(wrong("cannot connect to"))?;
        let files = [engines.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        let sent = sendmsg(&stream, &[IoSlice::new(&name)], &mut control, SendFlags::NOSIGNAL);
        sent.map_err(io::Error::from).map_err(wrong("cannot send the terminal to"))?;
        Ok(Self(process))
    }

    /// Makes it the terminal and the standard streams of this process, which leads no group of processes.
    pub(super) fn take(self) -> io::Result<()> {
        setsid()?;
        ioctl_tiocsctty(&self.0)?;
        dup2_stdin(&self.0)?;
        dup2_stdout(&self.0)?;
        Ok(dup2_stderr(&self.0)?)
    }
}
