//! The 16550 serial port: vm-superio's register model, with input that waits instead of being
//! lost.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::aml::AcpiDevice;
use crate::bus::Device;
use crate::irq::IrqLine;
use crate::node::Node;

/// First port of COM1.
const PORT: u16 = 0x3f8;
/// Ports of a 16550.
const LEN: u16 = 8;
/// Interrupt of COM1: edge-triggered, active high, as on the ISA bus.
const GSI: u32 = 4;

/// Input bytes that wait for the guest. A terminal never gets there; a pipe does, and then its
/// reader waits in its turn.
const BACKLOG: usize = 64 << 10;

struct Edge(Arc<dyn IrqLine>);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

/// A 16550 UART.
pub struct SerialPort {
    uart: Serial<Edge, NoEvents, Box<dyn Write + Send>>,
    waiting: VecDeque<u8>,
    output_failed: bool,
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialPort")
            .field("uart", &self.uart.state())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl SerialPort {
    /// COM1, as on a PC.
    pub fn node() -> Node {
        let acpi = AcpiDevice { name: "COM1", hid: "PNP0501", uid: Some(0), edge: true };
        Node::at_ports("serial0", PORT, LEN).with_gsi(GSI).in_dsdt(&acpi)
    }

    /// A port that writes what the guest sends to `output`, flushed byte by byte, and interrupts
    /// on `line`, an edge for each condition that comes up.
    ///
    /// Output that cannot be written is dropped: the guest is not told, as on a cable with
    /// nothing at its end.
    pub fn new(line: Arc<dyn IrqLine>, output: Box<dyn Write + Send>) -> Self {
        Self {
            uart: Serial::new(Edge(line), output),
            waiting: VecDeque::new(),
            output_failed: false,
        }
    }

    /// Takes input for the guest, and returns how many bytes of it there was room for.
    fn push(&mut self, input: &[u8]) -> usize {
        let taken = input.len().min(BACKLOG - self.waiting.len());
        self.waiting.extend(&input[..taken]);
        self.refill();
        taken
    }

    /// Moves waiting input into the FIFO, as much as it holds. In loopback mode the receiver is
    /// cut off, and the input goes on waiting.
    fn refill(&mut self) {
        let room = self.uart.fifo_capacity().min(self.waiting.len());
        if room == 0 {
            return;
        }
        let (front, _) = self.waiting.as_slices();
        let chunk = &front[..room.min(front.len())];
        let taken = self.uart.enqueue_raw_bytes(chunk).unwrap_or(0);
        self.waiting.drain(..taken);
    }

    fn fifo_is_empty(&self) -> bool {
        self.uart.fifo_capacity() == FIFO
    }

    fn write_register(&mut self, register: u8, value: u8) {
        match self.uart.write(register, value) {
            // Only a register that prints can tell that printing works again.
            Ok(()) => self.output_failed &= register != TRANSMIT,
            // Said once per run of failures, or a closed pipe would fill the log.
            Err(error) if !self.output_failed => {
                self.output_failed = true;
                tracing::warn!(%error, "serial output is lost");
            }
            Err(_) => {}
        }
    }
}

/// The register whose bytes are printed.
const TRANSMIT: u8 = 0;

/// The receive FIFO of vm-superio's UART.
const FIFO: usize = 64;

impl Device for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let [first, ..] = offset.to_le_bytes();
        for (register, byte) in (first..).zip(data) {
            *byte = self.uart.read(register);
            // When the FIFO has run dry and not before: every refill interrupts.
            if self.fifo_is_empty() {
                self.refill();
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let [first, ..] = offset.to_le_bytes();
        for (register, &value) in (first..).zip(data) {
            self.write_register(register, value);
            if self.fifo_is_empty() {
                self.refill();
            }
        }
    }
}

/// The host's end of a serial port's input: a handle for the thread that reads the terminal.
#[derive(Clone, Debug)]
pub struct SerialInput(Arc<Mutex<SerialPort>>);

impl SerialInput {
    /// The input of `port`.
    pub fn new(port: Arc<Mutex<SerialPort>>) -> Self {
        Self(port)
    }

    /// Sends `input` to the guest and returns how many bytes were taken. It waits for no reader:
    /// the caller offers the rest again when the guest has had time to read. It does wait while
    /// the guest's output blocks on the host, so a terminal's escape is looked for before.
    pub fn push(&self, input: &[u8]) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(input)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::chaos::Chaos;

    /// Registers of the 16550 as a driver names them.
    const RBR_THR: u64 = 0;
    const IER: u64 = 1;
    const IIR: u64 = 2;
    const LCR: u64 = 3;
    const MCR: u64 = 4;
    const LSR: u64 = 5;
    const SCR: u64 = 7;

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

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Edges(AtomicUsize);

    impl IrqLine for Edges {
        fn set(&self, asserted: bool) {
            self.0.fetch_add(usize::from(asserted), Ordering::Relaxed);
        }
    }

    struct Bench {
        port: Arc<Mutex<SerialPort>>,
        input: SerialInput,
        output: Output,
        edges: Arc<Edges>,
    }

    impl Bench {
        fn new() -> Self {
            let (output, edges) = (Output::default(), Arc::new(Edges::default()));
            let port =
                Arc::new(Mutex::new(SerialPort::new(edges.clone(), Box::new(output.clone()))));
            Self { input: SerialInput::new(port.clone()), port, output, edges }
        }

        fn read(&self, register: u64) -> u8 {
            let mut data = [0];
            self.port.lock().unwrap().read(register, &mut data);
            data[0]
        }

        fn write(&self, register: u64, value: u8) {
            self.port.lock().unwrap().write(register, &[value]);
        }

        fn edges(&self) -> usize {
            self.edges.0.swap(0, Ordering::Relaxed)
        }

        /// Reads as an interrupt handler does: while the line status says data ready.
        fn drain(&self) -> Vec<u8> {
            let mut received = Vec::new();
            while self.read(LSR) & 1 != 0 {
                received.push(self.read(RBR_THR));
            }
            received
        }
    }

    #[test]
    fn bytes_written_to_the_transmitter_reach_the_output() {
        let bench = Bench::new();

        for &byte in b"Linux\r\n" {
            assert_eq!(bench.read(LSR) & 0x60, 0x60, "transmitter empty");
            bench.write(RBR_THR, byte);
        }

        assert_eq!(*bench.output.0.lock().unwrap(), b"Linux\r\n");
    }

    #[test]
    fn divisor_latch_hides_the_transmitter() {
        let bench = Bench::new();

        bench.write(LCR, 0x83);
        bench.write(RBR_THR, 0x01);
        bench.write(IER, 0x00);
        let divisor = (bench.read(RBR_THR), bench.read(IER));
        bench.write(LCR, 0x03);
        bench.write(SCR, 0x5a);

        assert_eq!(divisor, (1, 0));
        assert_eq!(bench.read(SCR), 0x5a);
        assert_eq!(*bench.output.0.lock().unwrap(), b"");
    }

    #[test]
    fn input_interrupts_and_is_read_in_order() {
        let bench = Bench::new();
        bench.write(IER, 0x01);
        bench.edges();

        assert_eq!(bench.input.push(b"ls\n"), 3);

        assert_eq!(bench.edges(), 1);
        assert_eq!(bench.read(IIR) & 0x0f, 0x04);
        assert_eq!(bench.drain(), b"ls\n");
    }

    #[test]
    fn transmitter_empty_interrupts_when_it_is_enabled() {
        let bench = Bench::new();

        bench.write(IER, 0x02);

        assert_eq!(bench.edges(), 1);
        assert_eq!(bench.read(IIR) & 0x0f, 0x02);
        assert_eq!(bench.read(IIR) & 0x0f, 0x01);
    }

    #[test]
    fn input_beyond_the_fifo_waits_and_arrives_whole() {
        let bench = Bench::new();
        bench.write(IER, 0x01);
        let sent: Vec<u8> = (0..10_000_u32).map(|at| (at % 251) as u8).collect();

        assert_eq!(bench.input.push(&sent), sent.len());

        assert_eq!(bench.drain(), sent);
    }

    #[test]
    fn handler_that_stops_after_256_bytes_is_interrupted_again() {
        let bench = Bench::new();
        bench.write(IER, 0x01);
        bench.edges();
        bench.input.push(&[b'x'; 1000]);
        let mut received = 0;

        while bench.edges() != 0 {
            bench.read(IIR);
            for _ in 0..256 {
                if bench.read(LSR) & 1 == 0 {
                    break;
                }
                bench.read(RBR_THR);
                received += 1;
            }
        }

        assert_eq!(received, 1000);
    }

    #[test]
    fn input_in_loopback_mode_waits_until_it_ends() {
        let bench = Bench::new();
        bench.write(MCR, 0x10);

        bench.input.push(b"typed");
        bench.write(RBR_THR, b'L');
        assert_eq!(bench.drain(), b"L");
        bench.write(MCR, 0x08);

        assert_eq!(bench.drain(), b"typed");
        assert_eq!(*bench.output.0.lock().unwrap(), b"");
    }

    #[test]
    fn full_backlog_takes_no_more_and_loses_nothing() {
        let bench = Bench::new();
        let block = vec![7; 2 * BACKLOG];

        let first = bench.input.push(&block);
        let second = bench.input.push(&block);
        let third = bench.input.push(&block);

        assert_eq!((first, second, third), (BACKLOG, FIFO, 0));
        assert_eq!(bench.drain().len(), first + second);
    }

    #[test]
    fn output_that_fails_leaves_the_port_working() {
        let edges = Arc::new(Edges::default());
        let mut port = SerialPort::new(edges, Box::new(Broken));

        port.write(RBR_THR, b"a");
        port.write(SCR, &[0x77]);
        let mut data = [0];
        port.read(SCR, &mut data);

        assert_eq!(data, [0x77]);
    }

    #[test]
    fn a_driver_that_prints_to_nobody_is_said_once() {
        let mut port = SerialPort::new(Arc::new(Edges::default()), Box::new(Broken));

        // As Linux prints: interrupts are enabled and disabled around each byte.
        port.write(RBR_THR, b"a");
        for value in [0, 2] {
            port.write(IER, &[value]);
        }

        assert!(port.output_failed, "the next byte would be logged again");
    }

    #[test]
    fn random_accesses_never_panic() {
        let bench = Bench::new();
        let mut chaos = Chaos::new(0x16550);

        for _ in 0..100_000 {
            chaos.access(&mut *bench.port.lock().unwrap(), LEN.into());
            if chaos.below(16) == 0 {
                bench.input.push(&[0x55; 40]);
            }
        }
    }
}
