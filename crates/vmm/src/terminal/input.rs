//! What is typed, on its way to the machine.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::thread;
use std::time::Duration;

use super::escape::{Action, Escape, HELP};
use crate::sandbox::{Sandbox, ThreadKind};

/// How long to wait for a guest that does not read its serial port.
const RETRY: Duration = Duration::from_millis(10);

/// Who gets what is typed.
pub trait Consumer: Send {
    /// Takes bytes for the guest and returns how many; the rest is offered again.
    fn send(&self, bytes: &[u8]) -> usize;

    /// The user asked to end the machine.
    fn quit(&self);
}

/// Reads standard input on a thread of its own until it ends. Escape sequences act only when it
/// is a terminal: a pipe may carry any byte.
///
/// # Errors
///
/// The host gives no thread.
pub fn read_input(sandbox: Sandbox, consumer: impl Consumer + 'static) -> io::Result<()> {
    thread::Builder::new().name("console-input".into()).spawn(move || {
        sandbox.confine(ThreadKind::Console);
        let escape = io::stdin().is_terminal().then(Escape::default);
        pump(&mut io::stdin().lock(), escape, &consumer);
    })?;
    Ok(())
}

/// Passes `input` on to `consumer` until it ends, less what `escape` finds in it.
pub(crate) fn pump(input: &mut dyn Read, mut escape: Option<Escape>, consumer: &dyn Consumer) {
    let mut buffer = [0; 4096];
    loop {
        let typed = match input.read(&mut buffer) {
            // The end of the input is not the end of the machine.
            Ok(0) => return,
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::debug!(%error, "console input ends");
                return;
            }
        };
        let Some(escape) = &mut escape else {
            send_all(typed, consumer);
            continue;
        };
        for &byte in typed {
            match escape.feed(byte) {
                Some(Action::Send(byte)) => send_all(&[byte], consumer),
                Some(Action::Help) => show_help(),
                Some(Action::Quit) => consumer.quit(),
                None => {}
            }
        }
    }
}

fn send_all(mut bytes: &[u8], consumer: &dyn Consumer) {
    while !bytes.is_empty() {
        let taken = consumer.send(bytes);
        bytes = bytes.get(taken..).unwrap_or_default();
        if taken == 0 {
            thread::sleep(RETRY);
        }
    }
}

fn show_help() {
    // Help that cannot be shown is no reason to end the machine.
    let _ = io::stdout().lock().write_all(HELP.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Takes three bytes at a time, and nothing each second time.
    #[derive(Default)]
    struct Slow {
        got: Mutex<Vec<u8>>,
        offers: Mutex<u32>,
        quits: Mutex<u32>,
    }

    impl Consumer for Slow {
        fn send(&self, bytes: &[u8]) -> usize {
            let mut offers = self.offers.lock().unwrap();
            *offers += 1;
            let taken = if offers.is_multiple_of(2) { 0 } else { bytes.len().min(3) };
            self.got.lock().unwrap().extend(&bytes[..taken]);
            taken
        }

        fn quit(&self) {
            *self.quits.lock().unwrap() += 1;
        }
    }

    #[test]
    fn a_pipe_is_passed_on_whole_whatever_its_bytes() {
        let slow = Slow::default();

        pump(&mut &b"ab\x01xcdefg"[..], None, &slow);

        assert_eq!(*slow.got.lock().unwrap(), b"ab\x01xcdefg");
        assert_eq!(*slow.quits.lock().unwrap(), 0);
    }

    #[test]
    fn on_a_terminal_ctrl_a_x_quits_and_is_not_sent() {
        let slow = Slow::default();

        pump(&mut &b"ab\x01x"[..], Some(Escape::default()), &slow);

        assert_eq!(*slow.got.lock().unwrap(), b"ab");
        assert_eq!(*slow.quits.lock().unwrap(), 1);
    }
}
