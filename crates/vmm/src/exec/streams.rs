//! The host's ends of the command's streams and of the control connection, each a pair of sockets that are
//! made before the machine: the guest can reach these four, what quotes if that is asked for, and nothing else of
//! the host.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloister_devices::virtio::VsockHost;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

/// The host's ports (`guest/exec-init`, `host.rs`).
const CONTROL: u32 = 1024;
const INPUT: u32 = 1025;
const OUTPUT: u32 = 1026;
const ERRORS: u32 = 1027;
const QUOTES: u32 = 1028;

/// The host's ends.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) control: OwnedFd,
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
}

/// The other ends, until the guest connects to them: each once.
#[derive(Debug)]
pub(super) struct Offered {
    ends: Mutex<BTreeMap<u32, OwnedFd>>,
    /// Another end has been taken.
    taken: Condvar,
}

impl Offered {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, OwnedFd>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the guest has connected to take orders for the command, or for so long; returns whether
    /// it has.
    pub(super) fn await_reached(&self, time: Duration) -> bool {
        let is_left = |ends: &mut BTreeMap<u32, OwnedFd>| ends.contains_key(&CONTROL);
        let waited = self.taken.wait_timeout_while(self.lock(), time, is_left);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Offers the way to what quotes.
    pub(super) fn offer_quotes(&self, service: OwnedFd) {
        self.lock().insert(QUOTES, service);
    }

    /// Whether the guest has connected to take orders for the command.
    pub(super) fn is_reached(&self) -> bool {
        !self.lock().contains_key(&CONTROL)
    }
}

/// Makes all pairs.
pub(super) fn pairs() -> io::Result<(Streams, Offered)> {
    let mut offered = BTreeMap::new();
    let mut pair = |port| -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        offered.insert(port, other);
        Ok(own)
    };
    let streams = Streams {
        control: pair(CONTROL)?,
        input: pair(INPUT)?,
        output: pair(OUTPUT)?,
        errors: pair(ERRORS)?,
    };
    Ok((streams, Offered { ends: Mutex::new(offered), taken: Condvar::new() }))
}

impl VsockHost for Offered {
    fn connect(&self, port: u32) -> io::Result<OwnedFd> {
        let end = self.lock().remove(&port).ok_or(ErrorKind::ConnectionRefused)?;
        self.taken.notify_all();
        Ok(end)
    }

    fn listener(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Copies to the end of `from`, what `see` has seen. Where `to` takes no more, `from` is told so.
///
/// # Errors
///
/// Why `to` takes no more, unless its reader is gone.
pub(super) fn copy(
    from: &impl AsFd,
    to: &impl AsFd,
    mut see: impl FnMut(&[u8]),
) -> Result<(), Errno> {
    let mut piece = vec![0; 64 << 10];
    let outcome = loop {
        let count = match rustix::io::read(from, &mut piece[..]) {
            Ok(0) => break Ok(()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(_) => break Ok(()),
        };
        see(&piece[..count]);
        match write_all(to, &piece[..count]) {
            Ok(()) => {}
            Err(Errno::PIPE) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // Sockets only: files and pipes have no halves.
    let _ = shutdown(from, Shutdown::Read);
    let _ = shutdown(to, Shutdown::Write);
    outcome
}

/// Writes all of it, also to what takes only a part at a time.
pub(super) fn write_all(to: &impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for_room(to),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for_room(to: &impl AsFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    // An error is for the write to find.
    let _ = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn each_stream_is_the_guests_once() {
        let (streams, offered) = pairs().unwrap();

        let mut guest = UnixStream::from(offered.connect(OUTPUT).unwrap());
        guest.write_all(b"output").unwrap();
        drop(guest);
        let mut heard = String::new();
        UnixStream::from(streams.output).read_to_string(&mut heard).unwrap();

        assert_eq!(heard, "output");
        for port in [OUTPUT, QUOTES, 22, 0] {
            assert_eq!(offered.connect(port).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn the_command_is_reached_when_its_control_is() {
        let (_streams, offered) = pairs().unwrap();
        let moment = Duration::from_millis(1);

        offered.connect(INPUT).unwrap();
        assert!(!offered.await_reached(moment) && !offered.is_reached());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| offered.await_reached(Duration::from_secs(60)));
            offered.connect(CONTROL).unwrap();
            assert!(waiting.join().unwrap() && offered.is_reached());
        });
    }

    #[test]
    fn what_quotes_is_reached_once_where_it_is_offered() {
        let (_streams, offered) = pairs().unwrap();
        let (service, mut host) = UnixStream::pair().unwrap();
        offered.offer_quotes(service.into());

        let mut guest = UnixStream::from(offered.connect(QUOTES).unwrap());
        guest.write_all(b"request").unwrap();
        let mut heard = [0; 7];
        host.read_exact(&mut heard).unwrap();

        assert_eq!(&heard, b"request");
        assert!(offered.connect(QUOTES).is_err());
    }

    #[test]
    fn a_reader_that_is_gone_is_told_to_the_writer() {
        let (mut guest, from) = UnixStream::pair().unwrap();
        let (to, reader) = UnixStream::pair().unwrap();
        drop(reader);
        guest.write_all(b"x").unwrap();

        assert_eq!(copy(&from, &to, |_| ()), Ok(()));

        assert_eq!(guest.write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let (mut guest, from) = UnixStream::pair().unwrap();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        guest.write_all(b"x").unwrap();

        assert_eq!(copy(&from, &full, |_| ()), Err(Errno::NOSPC));

        assert_eq!(guest.write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
