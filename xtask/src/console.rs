//! The output of a running machine, line by line, with a deadline.

mod session;

use std::io::Read;
use std::ops::ControlFlow;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub(crate) use session::Session;

/// What a machine did from its start to its end.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// Lines of the console, without line ends.
    pub(crate) lines: Vec<String>,
    /// What the machine monitor wrote to standard error.
    pub(crate) stderr: String,
    /// Exit code; `None` if it was ended by a signal or by us.
    pub(crate) exit: Option<i32>,
    /// True if the deadline came first.
    pub(crate) timed_out: bool,
    /// The most memory the machine monitor had resident, in KiB, as seen whenever
    /// a line came.
    pub(crate) peak_kib: u64,
}

impl Transcript {
    /// The first console line that contains a text.
    pub(crate) fn find(&self, text: &str) -> Option<&str> {
        self.lines.iter().map(String::as_str).find(|line| line.contains(text))
    }

    /// The lines that begin with a text, without it.
    pub(crate) fn marked(&self, mark: &str) -> Vec<String> {
        self.lines.iter().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
    }

    /// The last lines of both outputs, for a failure's message.
    pub(crate) fn tail(&self) -> String {
        let start = self.lines.len().saturating_sub(8);
        let mut text = self.lines[start..].join("\n");
        if !self.stderr.trim().is_empty() {
            text.push_str("\nstandard error: ");
            text.push_str(self.stderr.trim());
        }
        text
    }
}

/// Runs a machine to its end or to the deadline, and calls `on_line` for every
/// console line as it comes, with the time since the start. `Break` ends the
/// machine.
///
/// # Errors
/// The program cannot be started or waited for.
pub(crate) fn run(
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(&str, Duration) -> ControlFlow<()>,
) -> Result<Transcript> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    let console = read_lines(stdout);
    let errors = read_all(stderr);

    let (mut lines, mut timed_out, mut peak_kib) = (Vec::new(), false, 0);
    loop {
        match console.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => {
                let flow = on_line(&line, start.elapsed());
                lines.push(line);
                peak_kib = resident_peak(child.id()).unwrap_or(peak_kib);
                if flow.is_break() {
                    child.kill().context("cannot end the machine")?;
                    break;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                timed_out = true;
                child.kill().context("cannot end the machine")?;
                break;
            }
        }
    }
    let (exit, late) = wait(&mut child, limit.saturating_sub(start.elapsed()))?;
    // Lines that came while the machine was being ended.
    lines.extend(console.try_iter());
    let stderr = errors.join().unwrap_or_default();
    Ok(Transcript { lines, stderr, exit: exit.code(), timed_out: timed_out || late, peak_kib })
}

/// VmHWM of a process; `None` once it has ended.
fn resident_peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Waits for the end of a program whose output has ended.
fn wait(child: &mut Child, limit: Duration) -> Result<(ExitStatus, bool)> {
    let deadline = Instant::now() + limit.max(Duration::from_secs(2));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if Instant::now() > deadline {
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn read_lines(mut stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let (mut pending, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            for &byte in &buffer[..length] {
                if byte != b'\n' {
                    pending.push(byte);
                } else if sender.send(text(&mut pending)).is_err() {
                    return;
                }
            }
        }
        if !pending.is_empty() {
            let _ = sender.send(text(&mut pending));
        }
    });
    receiver
}

fn text(bytes: &mut Vec<u8>) -> String {
    let line = String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
    bytes.clear();
    line
}

fn read_all(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
