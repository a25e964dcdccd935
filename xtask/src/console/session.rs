//! A dialogue with a machine: wait for a text, type a line.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{read_all, wait};

/// Output kept for messages, in bytes.
const KEPT: usize = 1000;
/// Comes before the exit code of a command. The line that is typed, which a terminal shows too,
/// has it in two parts.
const EXIT_CODE: &str = "exit-code=";

/// A running machine and its console. Dropped, it ends.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    errors: Option<JoinHandle<String>>,
    /// What has come and nobody has waited for.
    unread: String,
    /// The last of what has come.
    recent: String,
    show: bool,
}

impl Session {
    /// Starts a machine; shows its console if `show` says so.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn start(command: &mut Command, show: bool) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let input = child.stdin.take().context("no standard input")?;
        let mut stdout = child.stdout.take().context("no standard output")?;
        let errors = child.stderr.take().map(read_all);
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let (unread, recent) = (String::new(), String::new());
        Ok(Self { child, input, output, errors, unread, recent, show })
    }

    /// Waits for a text and returns what came before it.
    ///
    /// # Errors
    /// It does not come in time, or the machine ends before.
    pub(crate) fn expect(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.unread.find(text) {
                let before = self.unread[..at].to_owned();
                self.unread.drain(..at + text.len());
                return Ok(before);
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no {text:?} within {} s; last output:\n{}", limit.as_secs(), self.recent)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let stderr = self.stderr();
                    bail!(
                        "the machine ended before {text:?}; {stderr}last output:\n{}",
                        self.recent
                    )
                }
            }
        }
    }

    /// Types a line.
    ///
    /// # Errors
    /// The machine has ended.
    pub(crate) fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("cannot type to the machine")?;
        self.input.flush().context("cannot type to the machine")
    }

    /// Has the guest's shell run a command, and returns its output.
    ///
    /// # Errors
    /// It does not end in time, or with an exit code other than 0.
    pub(crate) fn run(&mut self, command: &str, limit: Duration) -> Result<String> {
        self.send(&format!("{command}; printf 'exit-%s=%s.\\n' code $?"))?;
        let output = self.expect(EXIT_CODE, limit)?;
        match &*self.expect(".", limit)? {
            "0" => Ok(output),
            code => bail!("{command} ended with exit code {code}; its output:\n{output}"),
        }
    }

    /// Waits for the machine's end and returns its exit code.
    ///
    /// # Errors
    /// It does not end in time.
    pub(crate) fn end(mut self, limit: Duration) -> Result<Option<i32>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no end within {} s; last output:\n{}", limit.as_secs(), self.recent)
                }
            }
        }
        let (status, late) = wait(&mut self.child, Duration::ZERO)?;
        if late {
            bail!("the machine closed its console and did not end");
        }
        Ok(status.code())
    }

    /// Adds output, without the terminal's control sequences.
    fn take(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        if self.show {
            print!("{text}");
        }
        for text_of in [&mut self.unread, &mut self.recent] {
            text_of.push_str(&text);
            *text_of = without_controls(text_of);
        }
        let excess = self.recent.len().saturating_sub(KEPT);
        let mut boundaries = excess..=self.recent.len();
        if let Some(start) = boundaries.find(|&at| self.recent.is_char_boundary(at)) {
            self.recent.drain(..start);
        }
    }

    /// What the monitor said, for a message; the machine has ended.
    fn stderr(&mut self) -> String {
        let text = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        match text.trim() {
            "" => String::new(),
            text => format!("standard error: {text}\n"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes out carriage returns and complete control sequences (`ESC [ ... letter`).
fn without_controls(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\x1b', '\r']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('\r') {
            rest = after;
            continue;
        }
        let Some(sequence) = rest.strip_prefix("\x1b[") else {
            if rest.len() == 1 {
                // Perhaps the start of one, whose rest is still to come.
                break;
            }
            rest = &rest[1..];
            continue;
        };
        match sequence.find(|c: char| c.is_ascii_alphabetic()) {
            Some(end) => rest = &sequence[end + 1..],
            None => break,
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::{Session, without_controls};
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn control_sequences_are_taken_out_when_they_are_complete() {
        assert_eq!(
            without_controls("[\x1b[0;32m  OK  \x1b[0m] a\r\nb\x1b[?2004h"),
            "[  OK  ] a\nb"
        );
        assert_eq!(without_controls("a\x1b[0;3"), "a\x1b[0;3");
        assert_eq!(without_controls("a\x1b"), "a\x1b");
    }

    #[test]
    fn a_dialogue_with_a_shell() {
        let limit = Duration::from_secs(10);
        let mut session = Session::start(&mut Command::new("sh"), false).unwrap();

        let output = session.run("echo one; echo two", limit).unwrap();
        let error = session.run("(exit 3)", limit).unwrap_err();
        session.send("echo last; exit 7").unwrap();
        session.expect("last", limit).unwrap();

        assert_eq!(output, "one\ntwo\n");
        assert!(error.to_string().contains("exit code 3"), "{error}");
        assert_eq!(session.end(limit).unwrap(), Some(7));
    }
}
