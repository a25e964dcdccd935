//! `cloister qemu` as a user meets it: what it says to mistakes, where it puts the console, and how
//! it leaves the terminal.

mod fixture;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fixture::{Scratch, bzimage, bzimage_that_runs, cloister, says_twice, text};

/// MOV DX, 3F8H; MOV AL, 'K'; OUT DX, AL.
const PRINT_K: [u8; 7] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'K', 0xee];

/// Waits until `done` has something.
fn wait_for<T>(what: &str, done: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    fn start(args: &[&str], directory: &Path) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .arg("qemu")
            .args(args)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(command.unwrap())
    }

    /// Asks it to end, and returns its exit code.
    fn end(&mut self) -> Option<i32> {
        signal(self.0.id(), "TERM");
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn each_mistake_is_one_line_in_qemus_words_and_exit_code_1() {
    let scratch = Scratch::new("qemu-mistakes");
    let kernel = scratch.file("kernel", &bzimage());
    let empty = scratch.file("empty", b"");
    symlink("/dev/null", scratch.0.join("null")).unwrap();
    let long = format!("unix:{},server=on", "x".repeat(108));
    let cases: &[(&[&str], &str)] = &[
        (&[], "-kernel: there is nothing to boot: add it, or -drive "),
        (&["-kernel", "missing"], "-kernel: cannot read missing: No such file"),
        (&["-kernel", &kernel, "-initrd", "missing"], "-initrd: cannot read missing"),
        (&["-kernel", &kernel, "-m", "1"], "-m: 1M of RAM is too little"),
        (&["-kernel", &kernel, "-smp", "0"], "-smp: \"0\" is not a number of processors: write"),
        (&["-kernel", &kernel, "-cpu", "host,+sgx3"], "-cpu: there is no flag sgx3: did you"),
        (&["-kernel", &kernel, "-numa", "node,mem=64M"], "-numa: the nodes have 64M of memory"),
        (
            &["-kernel", &kernel, "-drive", "file=missing,if=virtio"],
            "-drive: cannot open missing: No such file",
        ),
        (&["-kernel", &kernel, "-drive", "file=empty,if=virtio"], "-drive: empty: "),
        (&["-drive", "file=kernel,if=virtio"], "-drive: kernel: "),
        (&["-kernel", &kernel, "-sgx-platform", &empty], "-sgx-platform: "),
        (&["-kernel", &kernel, "-pidfile", "no/pid"], "-pidfile: cannot write no/pid: No such"),
        (&["-kernel", &kernel, "-pidfile", "null"], "-pidfile: null is not a regular file"),
        (&["-kernel", &kernel, "-serial", "file:kernel"], "-serial: kernel is the file of -kernel"),
        (
            &["-kernel", &kernel, "-drive", "file=kernel,if=virtio", "-pidfile", "kernel"],
            "-pidfile: kernel is the file of -kernel too: name another",
        ),
        (&["-kernel", &kernel, "-serial", "file:no/log"], "-serial: cannot make no/log: No such"),
        (
            &["-kernel", &kernel, "-serial", "unix:no/s,server=on"],
            "-serial: cannot listen on no/s: No such",
        ),
        (
            &["-kernel", &kernel, "-serial", "unix:empty,server=on"],
            "-serial: empty exists and is not",
        ),
        (&["-kernel", &kernel, "-qmp", "unix:no/q,server=on"], "-qmp: cannot listen on no/q: No"),
        (&["-kernel", &kernel, "-qmp", &long], "-qmp: unix: the path has 108 bytes and a socket's"),
        (&["-kernel", &kernel, "-vnc", ":0"], "-vnc: QEMU has this option and Cloister does not: "),
        (&["-kernel", &kernel, "-frobnicate"], "-frobnicate: no such option: see cloister qemu"),
        // The daemon's messages, and its failure, come back.
        (&["-kernel", "missing", "-daemonize"], "-kernel: cannot read missing: No such file"),
        (
            &["-kernel", &kernel, "-daemonize", "-pidfile", "no/pid"],
            "-pidfile: cannot write no/pid",
        ),
    ];

    for (args, start) in cases {
        let output = cloister(&[&["qemu"], *args].concat(), &scratch.0);

        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert_eq!((text(&output.stdout), error.lines().count()), ("", 1), "{args:?}: {error}");
        assert!(error.starts_with(&format!("cloister: {start}")), "{args:?}: {error}");
        assert!(!says_twice(error), "{args:?}: {error}");
    }
}

#[test]
fn help_names_the_options_and_the_version_is_told() {
    let help = cloister(&["qemu", "-help"], Path::new("."));
    let version = cloister(&["qemu", "-version"], Path::new("."));

    assert_eq!((help.status.code(), version.status.code()), (Some(0), Some(0)));
    assert!(text(&help.stdout).contains("\n  -sgx-epc "), "{}", text(&help.stdout));
    assert!(text(&version.stdout).starts_with("cloister "));
}

#[test]
fn help_as_an_argument_lists_what_there_is() {
    for (option, part) in [
        ("-M", "\nq35 "),
        ("-machine", "\nmicrovm "),
        ("-cpu", "\nx86 host "),
        ("-cpu", "sgx-aex-notify"),
        ("-device", "name \"virtio-blk-device\""),
        ("-accel", "\nkvm\ntcg\n"),
        ("-object", "memory-backend-epc"),
    ] {
        let output = cloister(&["qemu", option, "help"], Path::new("."));

        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{option}");
        assert!(text(&output.stdout).contains(part), "{option}: {}", text(&output.stdout));
    }
}

#[test]
fn the_console_is_in_a_file_and_the_process_has_a_name_and_a_pidfile() {
    let scratch = Scratch::new("qemu-file");
    let kernel = scratch.file("kernel", &bzimage_that_runs(&PRINT_K));
    let name = "guest=one,process=a,,name";
    let mut running = Running::start(
        &["-kernel", &kernel, "-serial", "file:log", "-pidfile", "pid", "-name", name],
        &scratch.0,
    );

    let log =
        wait_for("output", || fs::read(scratch.0.join("log")).ok().filter(|log| !log.is_empty()));
    let pid = fs::read_to_string(scratch.0.join("pid")).unwrap();
    let comm = fs::read_to_string(format!("/proc/{}/comm", running.0.id())).unwrap();
    let second = cloister(&["qemu", "-kernel", &kernel, "-pidfile", "pid"], &scratch.0);
    let code = running.end();

    assert_eq!(log, b"K");
    assert_eq!(pid, format!("{}\n", running.0.id()));
    assert_eq!(comm, "a,name\n");
    assert_eq!(
        text(&second.stderr),
        "cloister: -pidfile: pid is the file of a running process: end it, or name another\n"
    );
    assert_eq!(code, Some(128 + 15));
    assert!(!scratch.0.join("pid").exists());
}

#[test]
fn a_machine_waits_for_the_client_of_its_console() {
    let scratch = Scratch::new("qemu-socket");
    let kernel = scratch.file("kernel", &bzimage_that_runs(&PRINT_K));
    let socket = scratch.0.join("console");
    let mut running =
        Running::start(&["-kernel", &kernel, "-serial", "unix:console,server=on"], &scratch.0);

    let mut client = wait_for("the socket", || UnixStream::connect(&socket).ok());
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    let code = running.end();

    assert_eq!(&byte, b"K");
    assert_eq!(code, Some(128 + 15));
    assert!(!socket.exists());
}

/// A daemon that is ended with the test.
struct Daemon(u32);

impl Daemon {
    fn is_there(&self) -> bool {
        PathBuf::from(format!("/proc/{}", self.0)).exists()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_there() {
            signal(self.0, "KILL");
        }
    }
}

#[test]
fn a_daemon_goes_on_without_its_terminal_and_cleans_up() {
    let scratch = Scratch::new("qemu-daemon");
    let kernel = scratch.file("kernel", &bzimage_that_runs(&PRINT_K));

    let output = cloister(
        &[
            "qemu",
            "-kernel",
            &kernel,
            "-append",
            "console=ttyS0",
            "-serial",
            "file:log",
            "-pidfile",
            "pid",
            "-daemonize",
        ],
        &scratch.0,
    );

    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
    // It is there when the command has returned.
    let pid = fs::read_to_string(scratch.0.join("pid")).unwrap();
    let daemon = Daemon(pid.trim().parse().unwrap());
    let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", daemon.0)).unwrap();
    for standard in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(standard), Path::new("/dev/null"));
    }
    assert_eq!(link("cwd"), Path::new("/"));
    let status = fs::read_to_string(format!("/proc/{}/stat", daemon.0)).unwrap();
    let fields: Vec<&str> = status.rsplit_once(") ").unwrap().1.split(' ').collect();
    // A session of its own, which it does not lead, and no terminal (proc(5)).
    assert_ne!(fields[3], daemon.0.to_string());
    assert_eq!(fields[4], "0");
    wait_for("output", || (fs::read(scratch.0.join("log")).unwrap() == b"K").then_some(()));

    signal(daemon.0, "TERM");

    wait_for("the end", || (!daemon.is_there()).then_some(()));
    assert!(!scratch.0.join("pid").exists());
}
