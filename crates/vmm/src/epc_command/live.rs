//! The view that is refreshed in place on a terminal, as `top` does it.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;

use super::{EpcError, PERIOD, Watched};
use crate::sandbox::Sandbox;
use crate::terminal::{self, RawMode, SIGNALLED};

/// The alternate screen without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The screen as it was before.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Home, and what ends a line and a frame whatever was there before.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\r\n";
const END_OF_FRAME: &str = "\x1b[J";

/// Ctrl-C and Ctrl-D in raw mode.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

/// Whether the alternate screen is shown. Global because a panic hook has nothing else to find it
/// by.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// The alternate screen, until it is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        static PANIC_HOOK: Once = Once::new();
        PANIC_HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                report(panic);
            }));
        });
        SHOWN.store(true, Ordering::SeqCst);
        let screen = Self;
        let mut out = io::stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Shows the screen that was there before. A second call does nothing.
fn leave() {
    if SHOWN.swap(false, Ordering::SeqCst) {
        // Past the lock, which a signal may find taken. Nobody is left to tell of an error.
        let _ = rustix::io::write(io::stdout().as_fd(), LEAVE.as_bytes());
    }
}

/// Shows the machines until the user has seen enough or all of them have ended.
pub(super) fn show(machines: &mut [Watched]) -> Result<(), EpcError> {
    terminal::on_stop_signal(Sandbox::off(), |signal| {
        leave();
        terminal::restore();
        std::process::exit(SIGNALLED + signal);
    })?;
    let raw = RawMode::enter()?;
    let screen = Screen::enter()?;
    let outcome = refresh_until_quit(machines);
    drop(screen);
    drop(raw);
    for machine in machines.iter().filter(|machine| machine.ended) {
        writeln!(io::stdout(), "{}", machine.end())?;
    }
    outcome
}

fn refresh_until_quit(machines: &mut [Watched]) -> Result<(), EpcError> {
    loop {
        let next = Instant::now() + PERIOD;
        for machine in &mut *machines {
            machine.refresh()?;
        }
        if machines.iter().all(|machine| machine.ended) {
            return Ok(());
        }
        let (rows, columns) = size();
        let mut lines = vec!["cloister epc: q quits".to_owned()];
        for machine in &*machines {
            lines.push(String::new());
            lines.extend(machine.lines());
        }
        let mut out = io::stdout().lock();
        out.write_all(frame(&lines, rows, columns).as_bytes())?;
        out.flush()?;
        drop(out);
        if quit_before(next)? {
            return Ok(());
        }
    }
}

/// Rows and columns of the terminal.
fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout().as_fd()) {
        Ok(size) if size.ws_row != 0 && size.ws_col != 0 => {
            (size.ws_row.into(), size.ws_col.into())
        }
        _ => (24, 80),
    }
}

/// What shows `lines` on a terminal of this size. The last row says what of them does not fit.
fn frame(lines: &[String], rows: usize, columns: usize) -> String {
    let mut frame = HOME.to_owned();
    // The last line feed must not scroll.
    let room = rows.saturating_sub(1).max(1);
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let cut = lines.len() > room || width > columns;
    let shown = if cut { lines.len().min(room - 1) } else { lines.len() };
    for line in &lines[..shown] {
        frame.extend(line.chars().take(columns));
        frame.push_str(END_OF_LINE);
    }
    if cut {
        let more = (shown < lines.len()).then(|| format!("{} more lines", lines.len() - shown));
        let narrow = (width > columns).then(|| format!("cut: it has {width} columns"));
        let note = [more, narrow].into_iter().flatten().collect::<Vec<_>>().join(", ");
        frame.extend(format!("({note})").chars().take(columns));
        frame.push_str(END_OF_LINE);
    }
    frame + END_OF_FRAME
}

/// Waits until `next`; whether the user quits before.
fn quit_before(next: Instant) -> io::Result<bool> {
    let left = || next.saturating_duration_since(Instant::now());
    let mut stdin = io::stdin();
    if !stdin.is_terminal() {
        thread::sleep(left());
        return Ok(false);
    }
    while !left().is_zero() {
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut watched, Some(&timespec(left()))) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut typed = [0; 64];
        let length = stdin.read(&mut typed)?;
        // The terminal hung up.
        if length == 0 {
            return Ok(true);
        }
        if typed[..length].iter().any(|key| matches!(key, b'q' | b'Q' | &CTRL_C | &CTRL_D)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lines: usize, rows: usize, columns: usize) -> Vec<String> {
        let lines: Vec<String> = (0..lines).map(|line| format!("line {line}")).collect();
        let frame = frame(&lines, rows, columns);
        let body = frame.strip_prefix(HOME).unwrap().strip_suffix(END_OF_FRAME).unwrap();
        body.split_terminator(END_OF_LINE).map(str::to_owned).collect()
    }

    #[test]
    fn a_frame_never_scrolls_and_counts_what_does_not_fit() {
        assert_eq!(rows(2, 24, 80), ["line 0", "line 1"]);
        assert_eq!(rows(23, 24, 80).len(), 23);
        let cut = rows(24, 24, 80);
        assert_eq!((cut.len(), cut[22].as_str()), (23, "(2 more lines)"));
        assert_eq!(rows(3, 1, 80), ["(3 more lines)"]);
    }

    #[test]
    fn a_frame_that_is_too_narrow_says_so() {
        assert_eq!(rows(3, 24, 4), ["line", "line", "line", "(cut"]);
        let lines = ["x".repeat(80), String::new()];

        let frame = frame(&lines, 24, 40);

        assert!(frame.contains("(cut: it has 80 columns)"), "{frame}");
    }
}
