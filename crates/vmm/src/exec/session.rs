//! The threads between the command and this process: its streams, its signals, its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libc::{ENOENT, SIGINT, SIGWINCH, c_int, c_void, siginfo_t};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};
use vmm_sys_util::signal::register_signal_handler;

use super::keys::Keys;
use super::orders;
use super::run::terminal_size;
use super::streams::{Offered, Streams, copy, write_all};
use super::waiting::Waiting;
use super::{CANNOT_RUN, FAILURE, NOT_FOUND, TIMED_OUT};
use crate::machine::Control;
use crate::sandbox::{Sandbox, ThreadKind};
use crate::standard::complain;
use crate::terminal::{self, SIGNALLED};

/// A second SIGINT within this time ends the machine.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// How long a machine may take to reach the command: many times what a busy host needs.
pub(super) const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Bytes of a frame: a letter and two numbers (`guest/exec-init`, `host.rs`).
const FRAME: usize = 9;

/// Why the machine was told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The exit code is known.
    Code(u8),
    /// The command was not reached within [`BOOT_LIMIT`].
    NoBoot,
    /// The process that serves the host's folders is gone.
    NoFolders,
    /// What the command writes there can be written no more.
    Unwritten(&'static str, Errno),
}

/// The command of a machine.
pub(super) struct Session {
    control: Control,
    guest: Arc<OwnedFd>,
    offered: Arc<Offered>,
    /// Once it is known; the first stands.
    end: Arc<Mutex<Option<End>>>,
}

impl Session {
    /// Starts all threads. `name` is the command's, for messages.
    pub(super) fn start(
        control: &Control,
        sandbox: &Sandbox,
        streams: Streams,
        offered: Arc<Offered>,
        terminal: bool,
        name: String,
    ) -> io::Result<Self> {
        let Streams { control: guest, input, output, errors } = streams;
        let (guest, end) = (Arc::new(guest), Arc::new(Mutex::new(None)));
        let stream = |name, body| spawn(name, ThreadKind::Stream, sandbox, body);
        let mut keys = terminal.then(|| Keys::new(control.clone(), offered.clone()));
        let read = move || {
            // What the command does not read is its own affair.
            let _ = copy(&stdin(), &input, |bytes| {
                if let Some(keys) = &mut keys {
                    keys.see(bytes);
                }
            });
        };
        stream("input", Box::new(read))?;
        let unwritten = |name| {
            let end = end.clone();
            move |error| set(&end, End::Unwritten(name, error))
        };
        let lost = unwritten("standard output");
        let write = move || copy(&output, &stdout(), |_| ()).unwrap_or_else(lost);
        let mut written = vec![stream("output", Box::new(write))?];
        if !terminal {
            let lost = unwritten("standard error");
            let write = move || copy(&errors, &stderr(), |_| ()).unwrap_or_else(lost);
            written.push(stream("errors", Box::new(write))?);
        }
        let ending = {
            let (control, guest, end) = (control.clone(), guest.clone(), end.clone());
            move || {
                let Some(ended) = await_ending(&guest) else { return };
                // The code counts when all is written that came before it.
                for stream in written {
                    let _ = stream.join();
                }
                set(&end, End::Code(ended.code(&name)));
                control.quit();
            }
        };
        stream("ending", Box::new(ending))?;
        pass_signals_on(control, sandbox, &guest, offered.clone())?;
        if terminal {
            pass_sizes_on(sandbox, guest.clone())?;
        }
        Ok(Self { control: control.clone(), guest, offered, end })
    }

    /// Ends a machine that does not reach the command within [`BOOT_LIMIT`], and one whose command runs for
    /// longer than `limit`, if there is one. Meanwhile `waiting` tells of the boot.
    pub(super) fn watch_time(
        &self,
        limit: Option<Duration>,
        waiting: Arc<Waiting>,
        sandbox: &Sandbox,
    ) -> io::Result<()> {
        let (control, offered, end) =
            (self.control.clone(), self.offered.clone(), self.end.clone());
        let start = Instant::now();
        let watch = move || {
            while !offered.await_reached(waiting.tick("the machine boots", start.elapsed())) {
                if start.elapsed() >= BOOT_LIMIT {
                    set(&end, End::NoBoot);
                    return control.quit();
                }
            }
            waiting.finish();
            if let Some(limit) = limit {
                thread::sleep(limit);
                set(&end, End::Code(TIMED_OUT));
                control.quit();
            }
        };
        spawn("time", ThreadKind::Signals, sandbox, Box::new(watch)).map(drop)
    }

    /// Ends the machine when the process at the other end of `socket`, which serves folders, is gone: the guest
    /// would wait for it forever.
    pub(super) fn watch_folders(&self, socket: Arc<OwnedFd>, sandbox: &Sandbox) -> io::Result<()> {
        let (control, end) = (self.control.clone(), self.end.clone());
        let watch = move || {
            // No event is asked for: what is always told is that the other end is closed.
            let mut closed = [PollFd::new(&socket, PollFlags::empty())];
            while poll(&mut closed, None) == Err(Errno::INTR) {}
            set(&end, End::NoFolders);
            control.quit();
        };
        spawn("folders", ThreadKind::Signals, sandbox, Box::new(watch)).map(drop)
    }

    /// Passes signals on that come as orders.
    pub(super) fn obey(&self, orders: OwnedFd, sandbox: &Sandbox) -> io::Result<()> {
        let (control, guest, offered) =
            (self.control.clone(), self.guest.clone(), self.offered.clone());
        let obey = move || {
            while let Some(signal) = orders::next(&orders) {
                if offered.is_reached() {
                    tell(&guest, b'S', [signal.unsigned_abs(), 0]);
                } else if orders::ends(signal) {
                    control.quit_for(signal);
                }
            }
        };
        spawn("orders", ThreadKind::Signals, sandbox, Box::new(obey)).map(drop)
    }

    /// Why the machine was told to end, if it was.
    pub(super) fn end(&self) -> Option<End> {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first that is set stands.
fn set(end: &Mutex<Option<End>>, value: End) {
    end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(value);
}

fn spawn(
    name: &str,
    kind: ThreadKind,
    sandbox: &Sandbox,
    body: Box<dyn FnOnce() + Send>,
) -> io::Result<JoinHandle<()>> {
    let sandbox = sandbox.clone();
    thread::Builder::new().name(name.into()).spawn(move || {
        sandbox.confine(kind);
        body();
    })
}

/// How the command ended, as the guest says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Exited(u32),
    Killed(u32),
    /// By an error of execve(2).
    NotStarted(u32),
}

impl Ended {
    fn code(self, name: &str) -> u8 {
        match self {
            Self::Exited(code) => (code & 0xff) as u8,
            Self::Killed(signal) => {
                u8::try_from(SIGNALLED.unsigned_abs().saturating_add(signal)).unwrap_or(FAILURE)
            }
            Self::NotStarted(number) => {
                let number = c_int::try_from(number).unwrap_or(0);
                complain(&format!("{name}: {}", io::Error::from_raw_os_error(number)));
                if number == ENOENT { NOT_FOUND } else { CANNOT_RUN }
            }
        }
    }
}

/// Reads the guest's frame; none from a guest that is gone, or says what has no meaning.
fn await_ending(guest: &OwnedFd) -> Option<Ended> {
    let mut frame = [0; FRAME];
    let mut filled = 0;
    while filled < FRAME {
        match rustix::io::read(guest, &mut frame[filled..]) {
            Ok(0) => return None,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    let number = u32::from_le_bytes(std::array::from_fn(|at| frame[1 + at]));
    Some(match frame[0] {
        b'X' => Ended::Exited(number),
        b'K' => Ended::Killed(number),
        b'N' => Ended::NotStarted(number),
        _ => return None,
    })
}

fn tell(guest: &OwnedFd, letter: u8, numbers: [u32; 2]) {
    let mut frame = [letter; FRAME];
    frame[1..5].copy_from_slice(&numbers[0].to_le_bytes());
    frame[5..9].copy_from_slice(&numbers[1].to_le_bytes());
    // A guest that is gone needs no orders.
    let _ = write_all(guest, &frame);
}

/// Passes signals that would end this process on to the command. One that comes before there is a command
/// ends the machine, as a SIGINT does that soon follows another.
fn pass_signals_on(
    control: &Control,
    sandbox: &Sandbox,
    guest: &Arc<OwnedFd>,
    offered: Arc<Offered>,
) -> io::Result<()> {
    let (control, guest) = (control.clone(), guest.clone());
    let last = Mutex::new(None::<Instant>);
    terminal::on_stop_signal(sandbox.clone(), move |signal| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = last.is_some_and(|last| last.elapsed() < IMPATIENCE);
        if signal == SIGINT {
            *last = Some(Instant::now());
        }
        if !offered.is_reached() || (soon && signal == SIGINT) {
            control.quit_for(signal);
        } else {
            tell(&guest, b'S', [signal.unsigned_abs(), 0]);
        }
    })
}

static RESIZED: OnceLock<EventFd> = OnceLock::new();

/// Tells the guest whenever the terminal has another size.
fn pass_sizes_on(sandbox: &Sandbox, guest: Arc<OwnedFd>) -> io::Result<()> {
    let event = EventFd::new(EFD_CLOEXEC)?;
    // Err: it is there already.
    let _ = RESIZED.set(event);
    register_signal_handler(SIGWINCH, note)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    let pass = move || {
        while let Some(Ok(_)) = RESIZED.get().map(EventFd::read) {
            let (rows, columns) = terminal_size();
            tell(&guest, b'W', [rows, columns]);
        }
    };
    spawn("resize", ThreadKind::Signals, sandbox, Box::new(pass)).map(drop)
}

/// Does nothing but a write: all that a signal handler may.
extern "C" fn note(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    if let Some(event) = RESIZED.get() {
        // It can only fail when the counter is full, and then it is readable already.
        let _ = event.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        for (ended, code) in [
            (Ended::Exited(0), 0),
            (Ended::Exited(255), 255),
            (Ended::Killed(9), 137),
            (Ended::Killed(u32::MAX - 200), FAILURE),
            (Ended::NotStarted(2), 127),
            (Ended::NotStarted(13), 126),
            (Ended::NotStarted(u32::MAX), 126),
        ] {
            assert_eq!(ended.code("program"), code, "{ended:?}");
        }
    }

    #[test]
    fn the_end_is_read_whole_or_not_at_all() {
        for (bytes, ended) in [
            (&b"X\x07\0\0\0\0\0\0\0"[..], Some(Ended::Exited(7))),
            (b"K\x0f\0\0\0\0\0\0\0", Some(Ended::Killed(15))),
            (b"?\0\0\0\0\0\0\0\0", None),
            (b"X\x07\0", None),
            (b"", None),
        ] {
            let (mut guest, host) = UnixStream::pair().unwrap();
            guest.write_all(bytes).unwrap();
            drop(guest);

            assert_eq!(await_ending(&host.into()), ended, "{bytes:?}");
        }
    }
}
