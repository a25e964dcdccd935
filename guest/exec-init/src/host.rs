//! Streams to the host: one for control, and one for each of the command's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread;

use crate::command::Ending;
use crate::system;

/// The host's ports.
pub(crate) mod port {
    pub(crate) const CONTROL: u32 = 1024;
    pub(crate) const INPUT: u32 = 1025;
    pub(crate) const OUTPUT: u32 = 1026;
    pub(crate) const ERRORS: u32 = 1027;
}

/// A frame is a letter and two numbers of 4 bytes, little endian.
const FRAME: usize = 9;

/// The control connection.
#[derive(Debug)]
pub(crate) struct Control(File);

/// What the host says.
#[derive(Debug)]
pub(crate) enum Order {
    /// A signal for the command.
    Signal(i32),
    /// The terminal has another size: rows and columns.
    Resize(u32, u32),
}

impl Control {
    pub(crate) fn connect() -> io::Result<Self> {
        Ok(Self(guest_vsock::connect(port::CONTROL)?.into()))
    }

    /// How the command ended, or that it could not be started. The host ends the machine when it has
    /// read this and all that the command wrote.
    pub(crate) fn tell(&mut self, ending: &Ending) -> io::Result<()> {
        let (letter, number) = match *ending {
            Ending::Exited(code) => (b'X', code),
            Ending::Killed(signal) => (b'K', signal),
            Ending::NotStarted(error) => (b'N', error),
        };
        let mut frame = [0; FRAME];
        frame[0] = letter;
        frame[1..5].copy_from_slice(&number.to_le_bytes());
        self.0.write_all(&frame)?;
        // Until the host has closed it: nothing of the frame is lost by the end of the machine.
        while self.0.read(&mut frame)? != 0 {}
        Ok(())
    }

    /// Passes what the host says on to `obey`, on a thread of its own.
    pub(crate) fn listen(&self, obey: impl Fn(Order) + Send + 'static) -> io::Result<()> {
        let mut stream = self.0.try_clone()?;
        thread::spawn(move || {
            let mut frame = [0; FRAME];
            while stream.read_exact(&mut frame).is_ok() {
                let number =
                    |at: usize| u32::from_le_bytes(std::array::from_fn(|index| frame[at + index]));
                match frame[0] {
                    b'S' => obey(Order::Signal(number(1) as i32)),
                    b'W' => obey(Order::Resize(number(1), number(5))),
                    _ => {}
                }
            }
        });
        Ok(())
    }
}

/// Copies to the end of `from`, on a thread of its own, and then tells `to` that no more comes, and `from`
/// that no more is read. A terminal whose last program is gone is an end too.
pub(crate) fn pump(from: OwnedFd, to: OwnedFd) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (mut from, mut to) = (File::from(from), File::from(to));
        let mut piece = vec![0; 64 << 10];
        loop {
            match from.read(&mut piece) {
                Ok(count @ 1..) => {
                    if to.write_all(&piece[..count]).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        // Sockets only; a pipe is closed by its end.
        system::shut_down(&from, libc::SHUT_RD);
        system::shut_down(&to, libc::SHUT_WR);
    })
}
