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
/// Characters of a line that quotes others.
const LONGEST_LINE: usize = 1000;
/// What stands for those that are left out.
const CUT: &str = "...";
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

/// Says a line of the command on standard error. It may quote what a user, a disk or a guest wrote.
pub fn complain(line: &str) {
    // It never fails: there is nobody else to tell.
    let _ = Stderr.write_all(format!("cloister: {}\n", one_line(line)).as_bytes());
}

/// `text` as one line of bounded length that does nothing to a terminal: what controls one, or turns
/// the direction of text, is escaped, and what is too long loses its middle.
pub(crate) fn one_line(text: &str) -> String {
    const HALF: usize = (LONGEST_LINE - CUT.len()) / 2;
    let mut line = String::new();
    for next in text.chars() {
        if is_control(next) {
            line.extend(next.escape_debug());
        } else {
            line.push(next);
        }
    }
    if line.chars().nth(LONGEST_LINE).is_none() {
        return line;
    }
    let head: String = line.chars().take(HALF).collect();
    let tail = line.char_indices().nth_back(HALF - 1).map_or("", |(at, _)| &line[at..]);
    format!("{head}{CUT}{tail}")
}

fn is_control(next: char) -> bool {
    let separates = matches!(next, '\u{2028}' | '\u{2029}');
    // What sets, embeds, overrides and isolates a direction (Unicode, annex 9, section 2).
    let turns = matches!(
        next,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    next.is_control() || separates || turns
}

/// Prints what was asked for on standard output. A reader that has seen enough is not an error.
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
        // The machine does not end because something cannot be shown.
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
    fn what_controls_a_terminal_is_escaped_and_what_can_be_read_is_kept() {
        for (text, line) in [
            ("a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{1b}[2J\u{7}\0\u{7f}\u{9b}", r"\u{1b}[2J\u{7}\0\u{7f}\u{9b}"),
            ("a\u{2028}b\u{202e}c\u{2066}", r"a\u{2028}b\u{202e}c\u{2066}"),
            (r#"it's "é", e\u{301}, 猫 and \n"#, r#"it's "é", e\u{301}, 猫 and \n"#),
        ] {
            assert_eq!(one_line(text), line);
        }
    }

    #[test]
    fn a_line_of_more_than_1000_characters_loses_its_middle() {
        let longest = "é".repeat(1000);
        let longer = format!("--kernel: {} cannot be read: a fix", "é".repeat(100_000));

        let (kept, cut) = (one_line(&longest), one_line(&longer));

        assert_eq!(kept, longest);
        assert!((990..=1000).contains(&cut.chars().count()), "{}", cut.chars().count());
        assert!(cut.starts_with("--kernel: é") && cut.ends_with("é cannot be read: a fix"));
        assert!(cut.contains("é...é"));
    }

    #[test]
    fn output_to_nobody_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);

        let error = PolledOutput::new(writer).write(b"x").unwrap_err();

        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}
