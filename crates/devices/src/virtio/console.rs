//! virtio-console with one port (virtio 1.2, section 5.3).

use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::device::{DeviceFault, VirtioDevice};
use super::mmio::MmioTransport;
use super::service::Service;
use super::virtqueue::Virtqueue;
use crate::dma::GuestRam;
use crate::io::IoLoop;
use crate::irq::IrqLine;

/// The configuration has the console's size.
const F_SIZE: u64 = 1 << 0;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Input bytes that wait for the guest, as for the serial port.
const BACKLOG: usize = 64 << 10;
/// Bytes that are copied at a time.
const PIECE: usize = 4096;

#[derive(Debug, Default)]
struct Backlog(Mutex<VecDeque<u8>>);

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The console device.
pub struct Console {
    output: Box<dyn Write + Send>,
    output_failed: bool,
    waiting: Arc<Backlog>,
    /// Columns and rows, the number of ports, and the emergency write register (both unused).
    config: [u8; 12],
    features: u64,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("config", &self.config)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

impl Console {
    /// Puts a console on a transport with `ram` and `line`, served by `io`. What the guest sends
    /// goes to `output`, flushed for each of its buffers; the second value takes what it is to receive.
    /// `size` is columns and rows, if they are known.
    ///
    /// Output that would block waits for the console's next turn, and output that cannot be written is
    /// dropped.
    pub fn attach(
        ram: &GuestRam,
        line: Arc<dyn IrqLine>,
        output: Box<dyn Write + Send>,
        size: Option<(u16, u16)>,
        io: &mut IoLoop,
    ) -> (Arc<Mutex<MmioTransport>>, ConsoleInput) {
        let waiting = Arc::new(Backlog::default());
        let mut config = [0; 12];
        if let Some((columns, rows)) = size {
            config[0..2].copy_from_slice(&columns.to_le_bytes());
            config[2..4].copy_from_slice(&rows.to_le_bytes());
        }
        let console = Self {
            output,
            output_failed: false,
            waiting: waiting.clone(),
            config,
            features: if size.is_some() { F_SIZE } else { 0 },
        };
        let transport = MmioTransport::new(Box::new(console), ram, line, io);
        let service = transport.service().clone();
        (Arc::new(Mutex::new(transport)), ConsoleInput { waiting, service })
    }

    fn receive(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
        let mut waiting = self.waiting.lock();
        while !waiting.is_empty() {
            let Some(chain) = queue.pop(ram)? else { break };
            let mut filled = 0;
            loop {
                let (front, _) = waiting.as_slices();
                let taken = chain.write(ram, filled, front)?;
                if taken == 0 {
                    break;
                }
                waiting.drain(..taken);
                filled += taken as u64;
            }
            queue.complete(ram, &chain, filled)?;
        }
        Ok(())
    }

    fn transmit(&mut self, queue: &mut Virtqueue, ram: &GuestRam) -> Result<(), DeviceFault> {
        let mut piece = [0; PIECE];
        while let Some(chain) = queue.pop(ram)? {
            let mut sent = chain.done();
            loop {
                let count = chain.read(ram, sent, &mut piece)?;
                if count == 0 {
                    break;
                }
                let Some(taken) = self.write_output(&piece[..count]) else {
                    queue.put_back(chain, sent);
                    return Ok(());
                };
                sent += taken as u64;
                if queue.is_paused() {
                    queue.put_back(chain, sent);
                    return Ok(());
                }
            }
            queue.complete(ram, &chain, 0)?;
        }
        Ok(())
    }

    /// Writes some of `data`, or drops all of it, and returns how much that was. `None` if it would block.
    fn write_output(&mut self, data: &[u8]) -> Option<usize> {
        let written = self.output.write(data).and_then(|count| {
            self.output.flush()?;
            if count == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(count) }
        });
        match written {
            Ok(count) => {
                self.output_failed = false;
                Some(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == ErrorKind::Interrupted => Some(0),
            Err(error) => {
                if !self.output_failed {
                    self.output_failed = true;
                    tracing::warn!(%error, "console output is lost");
                }
                Some(data.len())
            }
        }
    }
}

impl VirtioDevice for Console {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[64, 64]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn serve(
        &mut self,
        index: usize,
        queue: &mut Virtqueue,
        ram: &GuestRam,
    ) -> Result<(), DeviceFault> {
        match index {
            RECEIVE => self.receive(queue, ram),
            TRANSMIT => self.transmit(queue, ram),
            _ => Ok(()),
        }
    }

    /// Input goes on waiting: whoever drives the console next gets it.
    fn reset(&mut self) {}
}

/// The host's end of a console's input: a handle for the thread that reads the terminal.
#[derive(Clone, Debug)]
pub struct ConsoleInput {
    waiting: Arc<Backlog>,
    service: Arc<Service>,
}

impl ConsoleInput {
    /// Sends `input` to the guest and returns how many bytes were taken. The caller offers the
    /// rest again when the guest has had time to read. It waits for nobody: the I/O thread passes the
    /// input on.
    pub fn push(&self, input: &[u8]) -> usize {
        let taken = {
            let mut waiting = self.waiting.lock();
            let taken = input.len().min(BACKLOG.saturating_sub(waiting.len()));
            waiting.extend(&input[..taken]);
            taken
        };
        self.service.request(RECEIVE);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::virtio::driver::{Driver, Part};
    use crate::{IoHandle, Unconnected};

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn console(size: Option<(u16, u16)>) -> (Driver, ConsoleInput, Output) {
        let output = Output::default();
        let (ram, line, sink) = (Driver::ram(), Arc::new(Unconnected), Box::new(output.clone()));
        let mut io = IoLoop::new().unwrap();
        let (transport, input) = Console::attach(&ram, line, sink, size, &mut io);
        let mut driver = Driver::attach(transport, ram, io);
        driver.start(F_SIZE * u64::from(size.is_some()));
        (driver, input, output)
    }

    #[test]
    fn what_the_guest_sends_reaches_the_output_in_order() {
        let (mut driver, _, output) = console(None);
        let long = vec![b'z'; 10_000];

        let first = driver.request(TRANSMIT, &[Part::Read(b"hello, "), Part::Read(b"host\n")]);
        driver.request(TRANSMIT, &[Part::Read(&long)]);

        assert_eq!(first.len, 0);
        let sent = output.0.lock().unwrap();
        assert_eq!(sent[..12], *b"hello, host\n");
        assert_eq!(sent[12..], long);
    }

    /// Takes a few bytes at a time, as long as there is room.
    #[derive(Clone, Default)]
    struct Narrow(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Narrow {
        fn give_room(&self, bytes: usize) {
            self.0.lock().unwrap().1 = bytes;
        }

        fn taken(&self) -> Vec<u8> {
            self.0.lock().unwrap().0.clone()
        }
    }

    impl Write for Narrow {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let (taken, room) = &mut *self.0.lock().unwrap();
            let count = data.len().min(*room).min(3);
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            taken.extend(&data[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn narrow() -> (Driver, Narrow) {
        let (ram, line, output) = (Driver::ram(), Arc::new(Unconnected), Narrow::default());
        let mut io = IoLoop::new().unwrap();
        let (transport, _) = Console::attach(&ram, line, Box::new(output.clone()), None, &mut io);
        let mut driver = Driver::attach(transport, ram, io);
        driver.start(0);
        (driver, output)
    }

    #[test]
    fn output_that_would_block_goes_on_where_it_was_in_the_next_turn() {
        let (mut driver, output) = narrow();
        driver.offer(TRANSMIT, &[Part::Read(b"abc"), Part::Read(b"defgh")]);
        driver.offer(TRANSMIT, &[Part::Read(b"ij")]);

        let mut back = Vec::new();
        driver.notify(TRANSMIT);
        for _ in 0..3 {
            output.give_room(4);
            driver.work();
            back.push(driver.take_used(TRANSMIT).len());
        }

        assert_eq!((output.taken(), back), (b"abcdefghij".to_vec(), vec![0, 1, 1]));
    }

    #[test]
    fn output_that_would_block_is_dropped_where_the_driver_takes_it_back() {
        for reset in [false, true] {
            let (mut driver, output) = narrow();
            output.give_room(2);
            driver.offer(TRANSMIT, &[Part::Read(b"abcdef")]);
            driver.notify(TRANSMIT);

            if reset {
                driver.start(0);
            } else {
                driver.put(0x030, TRANSMIT as u32);
                driver.put(0x044, 0);
                assert_eq!(driver.set_up_queue(TRANSMIT, 64), 1);
            }
            output.give_room(100);
            driver.work();
            assert!(driver.take_used(TRANSMIT).is_empty(), "reset: {reset}");
            driver.request(TRANSMIT, &[Part::Read(b"xy")]);

            assert_eq!(output.taken(), b"abxy", "reset: {reset}");
        }
    }

    #[test]
    fn a_pause_divides_a_long_output() {
        /// Asks for a pause whenever it gets something.
        struct Pausing(Narrow, IoHandle);
        impl Write for Pausing {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.1.pause(Duration::ZERO, || false);
                self.0.write(data)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (ram, line, output) = (Driver::ram(), Arc::new(Unconnected), Narrow::default());
        let mut io = IoLoop::new().unwrap();
        let handle = io.handle().clone();
        let pausing = Box::new(Pausing(output.clone(), handle.clone()));
        let (transport, _) = Console::attach(&ram, line, pausing, None, &mut io);
        let mut driver = Driver::attach(transport, ram, io);
        driver.start(0);
        output.give_room(100);

        driver.offer(TRANSMIT, &[Part::Read(b"abcdefgh")]);
        driver.notify(TRANSMIT);
        let mut taken = vec![output.taken()];
        for _ in 0..2 {
            driver.work();
            handle.resume();
            driver.work();
            taken.push(output.taken());
        }

        assert_eq!(taken, [&b"abc"[..], b"abcdef", b"abcdefgh"]);
        handle.resume();
        driver.work();
        assert_eq!(driver.take_used(TRANSMIT).len(), 1);
    }

    #[test]
    fn input_fills_buffers_that_wait_for_it() {
        let (mut driver, input, _) = console(None);
        driver.offer(RECEIVE, &[Part::Write(4), Part::Write(4)]);
        driver.offer(RECEIVE, &[Part::Write(8)]);
        driver.notify(RECEIVE);
        assert!(driver.take_used(RECEIVE).is_empty());

        assert_eq!(input.push(b"0123456789"), 10);
        driver.work();

        let used = driver.take_used(RECEIVE);
        assert_eq!(used.len(), 2);
        assert_eq!((used[0].len, used[1].len), (8, 2));
        assert_eq!(used[0].written, b"01234567");
        assert_eq!(used[1].written[..2], *b"89");
    }

    #[test]
    fn input_without_buffers_waits_for_them() {
        let (mut driver, input, _) = console(None);

        input.push(b"early");
        let used = driver.request(RECEIVE, &[Part::Write(64)]);

        assert_eq!(used.written[..used.len as usize], *b"early");
    }

    #[test]
    fn input_before_the_driver_and_over_a_reset_is_not_lost() {
        let (mut driver, input, _) = console(None);
        driver.reset();

        input.push(b"patient");
        driver.start(0);
        let used = driver.request(RECEIVE, &[Part::Write(64)]);

        assert_eq!(used.written[..used.len as usize], *b"patient");
    }

    #[test]
    fn full_backlog_takes_no_more() {
        let (_, input, _) = console(None);

        assert_eq!(input.push(&vec![0; BACKLOG + 1]), BACKLOG);
        assert_eq!(input.push(b"more"), 0);
    }

    #[test]
    fn size_is_in_the_configuration_when_it_is_known() {
        let (driver, _, _) = console(Some((132, 43)));

        assert_eq!(driver.config(0, 4), [132, 0, 43, 0]);
    }
}
