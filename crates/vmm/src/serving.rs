//! What threads have in common that serve clients of a socket, and are to look up at other news too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// How often one that waits for a thread looks.
const LOOK: Duration = Duration::from_millis(2);

/// A thread's bell: ringing it ends the thread's wait, or the next one.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    ///
    /// The host has no descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Ends the thread's wait.
    pub(crate) fn ring(&self) {
        // It can only fail when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until `fd` is ready, and says whether it is, or until the bell is rung, a signal comes or
    /// `timeout` is over.
    pub(crate) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        interest: PollFlags,
        timeout: Option<Duration>,
    ) -> bool {
        let bell = PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN);
        let mut both = [bell, PollFd::from_borrowed_fd(fd, interest)];
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        if poll(&mut both, timeout.as_ref()).is_err() {
            // Interrupted: the caller looks again.
            return false;
        }
        let [rung, ready] = both.map(|fd| !fd.revents().is_empty());
        if rung {
            let mut counter = [0; 8];
            // WouldBlock: another look took it.
            let _ = rustix::io::read(&self.0, &mut counter);
        }
        ready
    }
}

/// Waits for the end of a thread that something may hold up: at most so long.
pub(crate) fn wait_for_end(thread: &JoinHandle<()>, limit: Duration) {
    let end = Instant::now() + limit;
    while !thread.is_finished() && Instant::now() < end {
        thread::sleep(LOOK);
    }
}
