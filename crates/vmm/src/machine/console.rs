//! One terminal, two consoles: what both print goes to one place, and what is typed goes to the one
//! that printed last.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cloister_devices::virtio::ConsoleInput;
use cloister_devices::{Halt, SerialInput};

/// Which console printed last: the virtio console if set, else the serial port.
pub(super) type LastPrinted = Arc<AtomicBool>;

/// Where both consoles print to.
pub(super) type Screen = Arc<Mutex<dyn Write + Send>>;

/// The output of one of the consoles. That of the serial port waits for a screen that takes nothing, as
/// its processor does; that of the virtio console says so, since its thread has others to serve.
pub(super) struct ConsoleOutput {
    pub(super) virtio: bool,
    pub(super) screen: Screen,
    pub(super) last_printed: LastPrinted,
    pub(super) halt: Halt,
}

impl Write for ConsoleOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.last_printed.store(self.virtio, Ordering::Relaxed);
        loop {
            // Locked anew each time: the other console and a new boot print there too.
            match self.screen.lock().unwrap_or_else(PoisonError::into_inner).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.virtio => {}
                written => return written,
            }
            if self.halt.requested() {
                // There is nobody to read it in time.
                return Ok(bytes.len());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// The inputs of both consoles.
#[derive(Clone)]
pub(super) struct ConsoleInputs {
    pub(super) serial: Option<SerialInput>,
    pub(super) virtio: Option<ConsoleInput>,
    pub(super) last_printed: LastPrinted,
}

impl ConsoleInputs {
    pub(super) fn send(&self, bytes: &[u8]) -> usize {
        if self.last_printed.load(Ordering::Relaxed) {
            self.virtio.as_ref().map_or(0, |input| input.push(bytes))
        } else {
            self.serial.as_ref().map_or(0, |input| input.push(bytes))
        }
    }
}
