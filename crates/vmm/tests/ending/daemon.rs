//! The end of a machine that goes into the background and still waits for a client.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::guests::DEAF;
use crate::process::{Folder, Running, machine, signal};

/// What there is to wait for.
const WAITS: [[&str; 2]; 2] =
    [["--serial", "unix:other,server=on"], ["--qmp", "unix:other,wait=on"]];

/// The command, and the number of the process in the background.
fn waiting(folder: &Folder, wait: [&str; 2]) -> (Running, u32) {
    let mut command = machine(folder, DEAF);
    command.args(["--pidfile", "pid", "--daemonize"]).args(wait).stderr(Stdio::piped());
    let running = Running::start(folder, &mut command);
    let number = fs::read_to_string(folder.0.join("pid")).unwrap();
    (running, number.trim().parse().unwrap())
}

fn is_gone(folder: &Folder, process: u32) -> bool {
    let start = Instant::now();
    let left = || {
        let files = ["qmp", "pid", "other"].iter().any(|name| folder.0.join(name).exists());
        files || Path::new(&format!("/proc/{process}")).exists()
    };
    while left() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(5));
    }
    !left()
}

#[test]
fn it_ends_with_the_command_that_was_started() {
    for wait in WAITS {
        for name in ["INT", "TERM", "KILL"] {
            let folder = Folder::new(&format!("abandoned-{name}"));
            let (mut command, process) = waiting(&folder, wait);

            signal(command.id(), name);
            let (_, status) = command.wait(Instant::now());

            assert!(is_gone(&folder, process), "{wait:?} {name}");
            assert!(!status.success(), "{wait:?} {name}");
        }
    }
}

#[test]
fn the_command_fails_in_one_line_when_it_is_ended() {
    for wait in WAITS {
        for (name, why) in [
            ("TERM", "the machine was told to end before it was ready"),
            ("KILL", "the process in the background was ended before the machine was ready"),
        ] {
            let folder = Folder::new(&format!("unready-{name}"));
            let (mut command, process) = waiting(&folder, wait);

            signal(process, name);
            let (_, status) = command.wait(Instant::now());
            let mut error = String::new();
            command.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();

            assert!(is_gone(&folder, process), "{wait:?} {name}");
            assert_eq!(error, format!("cloister: --daemonize: {why}: start it again\n"));
            assert_eq!(status.code(), Some(1), "{wait:?} {name}");
        }
    }
}
