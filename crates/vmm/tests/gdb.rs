//! A debugger on the command's socket, in the bytes of GDB's remote serial protocol, under the sandbox.

#[path = "fixture/kernel.rs"]
mod kernel;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kernel::bzimage_that_runs;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the kernel is entered.
const ENTRY: u64 = 0x10_0000;
/// INC EAX; MOV [200000H], EAX; JMP back.
const COUNT: [u8; 8] = [0x40, 0xa3, 0, 0, 0x20, 0, 0xeb, 0xf8];

/// A command that runs a machine with two processors and a socket for debuggers.
struct Running {
    child: Child,
    /// Has the kernel and the socket.
    directory: PathBuf,
}

impl Running {
    /// A machine that counts, from when a debugger lets it.
    fn start(name: &str, translate: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("cloister-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("kernel"), bzimage_that_runs(&COUNT)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .args(["run", "--kernel", "kernel", "--serial", "null", "--cpus", "2"])
            .args(["--translate", translate, "--gdb", "unix:gdb,wait=on"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    fn connect(&self) -> Debugger {
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.directory.join("gdb")) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return Debugger(stream);
                }
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit code of the command, which is about to end.
    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// One end of the protocol.
struct Debugger(UnixStream);

impl Debugger {
    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("${packet}#{sum:02x}").as_bytes()).unwrap();
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// The next packet, which is acknowledged.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut packet = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => packet.push(byte),
            }
        }
        let sum = packet.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let sent = [self.byte(), self.byte()];
        assert_eq!(format!("{sum:02x}").as_bytes(), sent);
        // Nobody listens after the answer to `D`.
        let _ = self.0.write_all(b"+");
        decode_runs(&packet)
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    /// General-purpose register `n` in GDB's order, 16 for RIP, of the current thread.
    fn register(&mut self, n: usize) -> u64 {
        let packet = self.ask("g");
        u64::from_str_radix(&packet[n * 16..n * 16 + 16], 16).unwrap().swap_bytes()
    }
}

/// Undoes the protocol's run-length encoding: `*` and a count after a character.
fn decode_runs(packet: &[u8]) -> String {
    let mut text = Vec::new();
    let mut bytes = packet.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'*' {
            let (last, count) = (*text.last().unwrap(), bytes.next().unwrap() - 29);
            text.extend(std::iter::repeat_n(last, count.into()));
        } else {
            text.push(byte);
        }
    }
    String::from_utf8(text).unwrap()
}

const RAX: usize = 0;
const RIP: usize = 16;

fn stops_steps_and_watches(name: &str, translate: &str) {
    let running = Running::start(name, translate);
    let mut gdb = running.connect();

    let features = gdb.ask("qSupported:swbreak+;hwbreak+;vContSupported+");
    assert!(features.contains("swbreak+") && features.contains("qXfer:features:read+"));
    assert!(gdb.ask("qXfer:features:read:target.xml:0,ff0").starts_with('m'));
    assert!(gdb.ask("?").starts_with("T05"));
    assert_eq!(gdb.ask("Hg1"), "OK");
    assert_eq!(gdb.register(RIP), ENTRY);
    assert_eq!(gdb.ask("m100000,8"), "40a300002000ebf8");
    assert!(gdb.ask("mffffffff0000,8").starts_with('E'));

    assert_eq!(gdb.ask("Z0,100001,1"), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.starts_with("T05") && stop.contains("swbreak:"), "{stop}");
    let rax = gdb.register(RAX);
    assert_eq!(gdb.register(RIP), ENTRY + 1);
    // Processor 0 alone.
    let stop = gdb.ask("vCont;s:1");
    assert!(stop.starts_with("T05"), "{stop}");
    assert_eq!((gdb.register(RAX), gdb.register(RIP)), (rax, ENTRY + 6));
    let written = format!("{:08x}", u32::try_from(rax).unwrap().swap_bytes());
    assert_eq!(gdb.ask("m200000,4"), written);
    // The same breakpoint, a round later and many rounds later.
    for round in 1..100 {
        assert!(gdb.ask("vCont;c").starts_with("T05"));
        assert_eq!((gdb.register(RAX), gdb.register(RIP)), (rax + round, ENTRY + 1));
        gdb.ask("vCont;s:1");
    }
    assert_eq!(gdb.ask("z0,100001,1"), "OK");

    assert_eq!(gdb.ask("Z2,200000,4"), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.contains("watch:200000"), "{stop}");
    assert_eq!(gdb.register(RIP), ENTRY + 6);
    assert_eq!(gdb.ask("z2,200000,4"), "OK");

    assert_eq!(gdb.ask("M200010,2:abcd"), "OK");
    assert_eq!(gdb.ask("m200010,2"), "abcd");
    // Ctrl-C.
    let before = gdb.register(RAX);
    gdb.send("vCont;c");
    thread::sleep(Duration::from_millis(50));
    gdb.0.write_all(&[3]).unwrap();
    assert!(gdb.receive().starts_with("T02"));
    assert!(gdb.register(RAX) > before);

    gdb.send("k");
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn a_debugger_stops_steps_and_watches_interpreted_code() {
    stops_steps_and_watches("gdb-interpreted", "off");
}

#[test]
fn a_debugger_stops_steps_and_watches_with_the_translator() {
    stops_steps_and_watches("gdb-translated", "always");
}

#[test]
fn processors_are_threads() {
    let running = Running::start("gdb-threads", "on");
    let mut gdb = running.connect();

    assert_eq!(gdb.ask("qfThreadInfo"), "m01,02");
    let told = gdb.ask("qThreadExtraInfo,2");
    let text: String = (0..told.len() / 2)
        .map(|n| char::from(u8::from_str_radix(&told[2 * n..2 * n + 2], 16).unwrap()))
        .collect();
    assert_eq!(text, "CPU#1 [waits for a start-up IPI]");
}

#[test]
fn a_debugger_that_leaves_or_dies_leaves_the_machine_running_and_the_socket_open() {
    let running = Running::start("gdb-leaves", "on");
    let mut gdb = running.connect();
    assert!(gdb.ask("?").starts_with("T05"));
    assert_eq!(gdb.ask("Z0,100001,1"), "OK");
    assert!(gdb.ask("vCont;c").starts_with("T05"));
    let first = gdb.register(RAX);
    // Dead at its breakpoint.
    drop(gdb);
    thread::sleep(Duration::from_millis(200));

    let mut gdb = running.connect();
    assert!(gdb.ask("?").starts_with("T05"));
    let second = gdb.register(RAX);
    assert!(second > first);
    assert_eq!(gdb.ask("D"), "OK");
    let mut rest = [0];
    let end = gdb.0.read(&mut rest).map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Ok(1) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    thread::sleep(Duration::from_millis(200));

    let mut gdb = running.connect();
    assert!(gdb.ask("?").starts_with("T05"));
    assert!(gdb.register(RAX) > second);
}
