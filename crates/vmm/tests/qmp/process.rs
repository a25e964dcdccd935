//! The monitor of the program, with its sandbox.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::guests::DOTS;
use crate::kernel::bzimage_that_runs;
use crate::machine::PATIENCE;

/// `cloister run` with a monitor that waits for its client.
struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    fn start(name: &str) -> Self {
        let name = format!("cloister-monitor-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kernel"), bzimage_that_runs(DOTS)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .args(["run", "--kernel", "kernel", "--memory", "4M", "--cpus", "2"])
            .args(["--sgx-epc", "id=a,size=1M", "--qmp", "unix:socket,wait=on"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// A client, as soon as the socket is there.
    fn client(&self) -> Client {
        let (socket, start) = (self.folder.join("socket"), Instant::now());
        while !socket.exists() {
            assert!(start.elapsed() < PATIENCE, "there is no socket");
            thread::sleep(Duration::from_millis(5));
        }
        let mut client = Client::connect(&socket);
        client.read();
        client.get("qmp_capabilities");
        client
    }

    /// Reads the console to its end, and returns the exit code, how much there was to read, and what
    /// is left of the socket.
    fn end(mut self) -> (Option<i32>, u64, bool) {
        let mut console = self.child.stdout.take().unwrap();
        let printed = io::copy(&mut console, &mut io::sink()).unwrap();
        let code = self.child.wait().unwrap().code();
        let left = self.folder.join("socket").exists();
        fs::remove_dir_all(&self.folder).unwrap();
        (code, printed, left)
    }
}

#[test]
fn quit_ends_the_program_with_exit_code_0() {
    let process = Process::start("quit");
    let mut client = process.client();

    client.get("stop");
    client.get("query-sgx");
    client.get("query-cpus-fast");
    client.get("cont");
    client.get("system_reset");
    client.get("quit");
    drop(client);

    let (code, _, left) = process.end();
    assert_eq!((code, left), (Some(0), false));
}

#[test]
fn a_signal_is_told_and_the_socket_removed() {
    let process = Process::start("signal");
    let mut client = process.client();
    let id = process.child.id().to_string();
    client.get("query-cpus-fast");

    let killed = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    let (code, _, left) = process.end();

    assert!(killed.success());
    assert_eq!(client.event(), ("SHUTDOWN".into(), "host-signal".into()));
    assert_eq!((code, left), (Some(128 + 15), false));
}

#[test]
fn the_machine_starts_when_its_client_has_come_and_not_before() {
    let process = Process::start("wait");
    thread::sleep(Duration::from_millis(300));
    let first = process.folder.join("socket");
    assert!(first.exists());

    // Without a client, a signal ends the wait.
    let id = process.child.id().to_string();
    Command::new("kill").args(["-INT", &id]).status().unwrap();
    let (code, printed, left) = process.end();

    assert_eq!((code, printed, left), (Some(128 + 2), 0, false));
}
