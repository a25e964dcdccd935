//! What a machine is told by others than its guest once it is made: to begin, and signals for its command. Each
//! order is a byte of a FIFO.

use std::io;
use std::os::fd::OwnedFd;

use libc::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
use rustix::io::{Errno, read};

/// The order to begin. Others are numbers of signals.
pub const START: u8 = 0;

/// Where orders come from, and whom to tell that they are awaited.
pub struct Orders<'a> {
    /// The FIFO, open for reading and writing, so that it never ends.
    pub from: OwnedFd,
    /// Is called when all that can fail has been done.
    pub ready: Box<dyn FnOnce() -> io::Result<()> + 'a>,
}

impl std::fmt::Debug for Orders<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders").field("from", &self.from).finish_non_exhaustive()
    }
}

/// How the wait for the start ended.
#[derive(Debug)]
pub(super) enum Released {
    /// The machine is to begin. Further orders come here.
    Started(OwnedFd),
    /// A signal came first that ends a program.
    Ended(i32),
}

impl Orders<'_> {
    /// Says that all is ready, and waits for the start.
    pub(super) fn await_start(self) -> io::Result<Released> {
        (self.ready)()?;
        loop {
            match next(&self.from) {
                Some(0) => return Ok(Released::Started(self.from)),
                Some(signal) if ends(signal) => return Ok(Released::Ended(signal)),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// The next order: [`START`] or a signal's number. None where no more can come.
pub(super) fn next(orders: &OwnedFd) -> Option<i32> {
    let mut order = [0];
    loop {
        match read(orders, &mut order[..]) {
            Ok(1) => return Some(order[0].into()),
            Err(Errno::INTR) => {}
            _ => return None,
        }
    }
}

/// Whether a signal ends a program that does nothing about it (signal(7)). One that would stop it is of no use to
/// who waits for a start.
pub(super) fn ends(signal: i32) -> bool {
    const HARMLESS: [i32; 8] =
        [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH];
    signal != i32::from(START) && !HARMLESS.contains(&signal)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_start_or_a_signal_that_ends_a_program_ends_the_wait() {
        for (bytes, expected) in [
            (&[SIGWINCH as u8, START, 15][..], Some(None)),
            (&[SIGCHLD as u8, 15, START], Some(Some(15))),
            (&[SIGCONT as u8], None),
        ] {
            let (mut orders, from) = UnixStream::pair().unwrap();
            orders.write_all(bytes).unwrap();
            drop(orders);
            let told = Cell::new(false);
            let ready = Box::new(|| {
                told.set(true);
                Ok(())
            });

            let found = match (Orders { from: from.into(), ready }).await_start() {
                Ok(Released::Started(rest)) => {
                    assert_eq!(next(&rest), Some(15));
                    Some(None)
                }
                Ok(Released::Ended(signal)) => Some(Some(signal)),
                Err(_) => None,
            };

            assert_eq!((found, told.get()), (expected, true), "{bytes:?}");
        }
    }
}
