//! Standard output and error of a process that nothing written there may hold up or end: a reader
//! may have gone, be slow, or never read, and a file may be full.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio;

/// What a pipe has room for that can be written to at all (PIPE_BUF of pipe(7)).
const PIECE: usize = 4096;
/// How long a line waits for a standard error that takes nothing.
const LINE_WAITS: i64 = 100_000_000;
/// How long console output waits before its writer looks whether it is still to wait.
const OUTPUT_WAITS: i64 = 50_000_000;

/// Whether `fd` takes something within so many nanoseconds.
fn has_room(fd: impl AsFd, nanoseconds: i64) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    // An error of the descriptor is for the write to find.
    matches!(poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&limit)), Ok(1..))
}

/// Standard error. A line that it does not take is dropped, and nothing waits for one that does not
/// take them until it does again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        static STUCK: AtomicBool = AtomicBool::new(false);
        let stderr = stdio::stderr();
        for piece in bytes.chunks(PIECE) {
            let wait = if STUCK.load(Ordering::Relaxed) { 0 } else { LINE_WAITS };
            let room = has_room(stderr, wait);
            STUCK.store(!room, Ordering::Relaxed);
            if !room || rustix::io::write(stderr, piece).is_err() {
                break;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says a line of the command on standard error.
pub fn complain(line: &str) {
    // It never fails: there is nobody else to tell.
    let _ = Stderr.write_all(format!("cloister: {line}\n").as_bytes());
}

/// Prints what was asked for on standard output. A reader that has seen enough is no error.
///
/// # Errors
///
/// Standard output does not take it.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Writes as much to standard output as it takes at once.
pub(crate) fn show(text: &str) {
    if has_room(stdio::stdout(), 0) {
        // What cannot be shown is no reason to end the machine.
        let _ = rustix::io::write(stdio::stdout(), text.as_bytes());
    }
}

/// A descriptor whose writer is never held up for long: [`ErrorKind::WouldBlock`] after a moment in
/// which it took nothing.
#[derive(Debug)]
pub struct PolledOutput<T>(T);

impl<T: AsFd> PolledOutput<T> {
    /// Output to `fd`.
    pub const fn new(fd: T) -> Self {
        Self(fd)
    }
}

impl<T: AsFd> Write for PolledOutput<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !has_room(&self.0, OUTPUT_WAITS) {
            return Err(ErrorKind::WouldBlock.into());
        }
        match rustix::io::write(&self.0, &bytes[..bytes.len().min(PIECE)]) {
            Err(Errno::INTR) => Err(ErrorKind::Interrupted.into()),
            written => Ok(written?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn output_that_nobody_reads_would_block_and_goes_on_when_it_is_read() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = PolledOutput::new(&writer);
        let start = Instant::now();

        let mut sent = 0;
        let full = loop {
            match output.write(&[b'x'; 10_000]) {
                Ok(length) => sent += length,
                Err(error) => break error,
            }
        };
        io::Read::read_exact(&mut reader, &mut vec![0; sent]).unwrap();
        let again = output.write(b"again").unwrap();

        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        assert!(sent >= PIECE && start.elapsed() < Duration::from_secs(10));
        assert_eq!(again, 5);
    }

    #[test]
    fn output_to_nobody_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);

        let error = PolledOutput::new(writer).write(b"x").unwrap_err();

        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
