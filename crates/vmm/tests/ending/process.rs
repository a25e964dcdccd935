//! A machine whose guest is hostile, and the ways to tell it to end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel::bzimage_that_runs;

/// How long anything may take that is not the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the end may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);

/// A directory of its own for one test, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("cloister-ending-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `cloister run` with a guest that runs `code`.
pub(crate) fn machine(folder: &Folder, code: &[u8]) -> Command {
    fs::write(folder.0.join("kernel"), bzimage_that_runs(code)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command
        .args(["run", "--kernel", "kernel", "--memory", "64M", "--qmp", "unix:qmp"])
        .current_dir(&folder.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// How a machine is told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Signal,
    Monitor,
}

/// A process that is ended with the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    socket: PathBuf,
}

impl Running {
    pub(crate) fn start(folder: &Folder, command: &mut Command) -> Self {
        let running = Self { child: command.spawn().unwrap(), socket: folder.0.join("qmp") };
        let start = Instant::now();
        while !running.socket.exists() {
            assert!(start.elapsed() < PATIENCE, "there is no monitor");
            thread::sleep(Duration::from_millis(5));
        }
        // Until the guest has its device at work.
        thread::sleep(Duration::from_millis(700));
        running
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells the machine to end, and returns how long that took and what came of it.
    pub(crate) fn end(&mut self, way: Way) -> (Duration, ExitStatus) {
        match way {
            Way::Signal => {
                let start = Instant::now();
                signal(self.id(), "TERM");
                self.wait(start)
            }
            Way::Monitor => {
                let mut client = BufReader::new(UnixStream::connect(&self.socket).unwrap());
                let mut greeting = String::new();
                client.read_line(&mut greeting).unwrap();
                let start = Instant::now();
                client
                    .get_mut()
                    .write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}")
                    .unwrap();
                // It is not read, and holds nothing up.
                self.wait(start)
            }
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, start: Instant) -> (Duration, ExitStatus) {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (start.elapsed(), status);
            }
            assert!(start.elapsed() < PATIENCE, "the machine does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(status.unwrap().success());
}

/// A disk of 1 TiB that takes no room.
pub(crate) fn sparse_disk(folder: &Folder) {
    File::create(folder.0.join("disk")).unwrap().set_len(1 << 40).unwrap();
}
