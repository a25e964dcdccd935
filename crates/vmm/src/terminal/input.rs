//! What is typed, on its way to the machine.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::escape::{Action, Escape, HELP};
use crate::sandbox::{Sandbox, ThreadKind};
use crate::standard;

/// How long to wait for a guest that does not read its serial port.
const RETRY: Duration = Duration::from_millis(10);
/// Typed bytes that wait for such a guest. What is typed beyond is lost: an escape sequence in it is
/// not.
const TYPED: usize = 64 << 10;

/// Who gets what is typed.
pub trait Consumer: Send {
    /// Takes bytes for the guest and returns how many; the rest is offered again.
    fn send(&self, bytes: &[u8]) -> usize;

    /// The user asked to end the machine.
    fn quit(&self);
}

/// Reads standard input on a thread of its own until it ends. Escape sequences act only when it
/// is a terminal: a pipe may carry any byte. A pipe waits for a guest that does not read; a terminal
/// is read on, for its escape sequences.
///
/// # Errors
///
/// The host gives no thread.
pub fn read_input(sandbox: Sandbox, consumer: impl Consumer + Clone + 'static) -> io::Result<()> {
    let keyboard = if io::stdin().is_terminal() {
        let keyboard = Keyboard { typed: Arc::default(), consumer: consumer.clone() };
        keyboard.deliver(sandbox.clone())?;
        Some(keyboard)
    } else {
        None
    };
    thread::Builder::new().name("console-input".into()).spawn(move || {
        sandbox.confine(ThreadKind::Console);
        let mut stdin = io::stdin().lock();
        match keyboard {
            Some(keyboard) => pump(&mut stdin, Some(Escape::default()), &keyboard),
            None => pump(&mut stdin, None, &consumer),
        }
    })?;
    Ok(())
}

/// What was typed and is not the guest's yet.
#[derive(Default)]
struct Typed {
    waiting: Mutex<VecDeque<u8>>,
    more: Condvar,
}

/// A consumer that takes what is typed at once, whatever the guest does.
#[derive(Clone)]
struct Keyboard<C> {
    typed: Arc<Typed>,
    consumer: C,
}

impl<C: Consumer + Clone + 'static> Keyboard<C> {
    /// Passes what is typed on, on a thread that waits for the guest and its devices.
    fn deliver(&self, sandbox: Sandbox) -> io::Result<()> {
        let Self { typed, consumer } = self.clone();
        thread::Builder::new().name("console-typed".into()).spawn(move || {
            sandbox.confine(ThreadKind::Console);
            loop {
                send_all(&typed.take(), &consumer);
            }
        })?;
        Ok(())
    }
}

impl Typed {
    /// Waits for something typed.
    fn take(&self) -> Vec<u8> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.more.wait_while(waiting, |waiting| waiting.is_empty());
        waiting.unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

impl<C: Consumer> Consumer for Keyboard<C> {
    fn send(&self, bytes: &[u8]) -> usize {
        let mut waiting = self.typed.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TYPED - waiting.len();
        if bytes.len() > room {
            tracing::warn!("the guest does not read its console: what is typed is lost");
        }
        waiting.extend(&bytes[..bytes.len().min(room)]);
        self.typed.more.notify_one();
        bytes.len()
    }

    fn quit(&self) {
        self.consumer.quit();
    }
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
                Some(Action::Help) => standard::show(HELP),
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

    impl Consumer for Arc<Slow> {
        fn send(&self, bytes: &[u8]) -> usize {
            Slow::send(self, bytes)
        }

        fn quit(&self) {
            Slow::quit(self);
        }
    }

    #[test]
    fn a_pipe_is_passed_on_whole_whatever_its_bytes() {
        let slow = Slow::default();

        pump(&mut &b"ab\x01xcdefg"[..], None, &slow);

        assert_eq!(*slow.got.lock().unwrap(), b"ab\x01xcdefg");
        assert_eq!(*slow.quits.lock().unwrap(), 0);
    }

    /// Takes nothing, ever.
    #[derive(Clone, Default)]
    struct Deaf(Arc<Mutex<u32>>);

    impl Consumer for Deaf {
        fn send(&self, _: &[u8]) -> usize {
            0
        }

        fn quit(&self) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn ctrl_a_x_quits_behind_any_input_that_the_guest_does_not_read() {
        let deaf = Deaf::default();
        let keyboard = Keyboard { typed: Arc::default(), consumer: deaf.clone() };
        keyboard.deliver(Sandbox::off()).unwrap();
        let typed = [vec![b'x'; 4 * TYPED], b"\x01x".to_vec()].concat();

        pump(&mut &typed[..], Some(Escape::default()), &keyboard);

        assert_eq!(*deaf.0.lock().unwrap(), 1);
    }

    #[test]
    fn what_is_typed_is_delivered_in_order() {
        let slow = Arc::new(Slow::default());
        let keyboard = Keyboard { typed: Arc::default(), consumer: slow.clone() };
        keyboard.deliver(Sandbox::off()).unwrap();

        pump(&mut &b"one two three"[..], Some(Escape::default()), &keyboard);
        while slow.got.lock().unwrap().len() < 13 {
            thread::sleep(RETRY);
        }

        assert_eq!(*slow.got.lock().unwrap(), b"one two three");
    }

    #[test]
    fn on_a_terminal_ctrl_a_x_quits_and_is_not_sent() {
        let slow = Slow::default();

        pump(&mut &b"ab\x01x"[..], Some(Escape::default()), &slow);

        assert_eq!(*slow.got.lock().unwrap(), b"ab");
        assert_eq!(*slow.quits.lock().unwrap(), 1);
    }
}
