//! Standard output and error that are closed, full or unread.

use std::fs::File;
use std::io::{BufRead as _, BufReader, pipe};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::guests::breaks_a_device;
use crate::process::{Folder, LIMIT, Running, Way, machine};

/// What makes a standard error.
type Output = fn() -> Stdio;

/// A full device.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// The writing end of a pipe that nobody reads any more.
fn closed() -> std::io::PipeWriter {
    pipe().unwrap().1
}

#[test]
fn warnings_that_cannot_be_written_end_nothing() {
    let outputs: [(&str, Output); 3] =
        [("closed", || closed().into()), ("full", || full().into()), ("unread", || Stdio::piped())];
    for (name, output) in outputs {
        for backtrace in ["0", "1"] {
            let folder = Folder::new(name);
            let mut command = machine(&folder, &breaks_a_device());
            command.stderr(output()).env("RUST_BACKTRACE", backtrace);
            let mut running = Running::start(&folder, &mut command);

            let (took, status) = running.end(Way::Signal);

            assert_eq!(status.code(), Some(128 + 15), "{name}, RUST_BACKTRACE={backtrace}");
            assert!(took < LIMIT, "{name}: {took:?}");
        }
    }
}

#[test]
fn warnings_that_a_guest_causes_are_few() {
    let folder = Folder::new("flood");
    let mut command = machine(&folder, &breaks_a_device());
    let mut running = Running::start(&folder, command.stderr(Stdio::piped()));
    thread::sleep(Duration::from_secs(2));

    running.end(Way::Signal);

    let lines: Vec<String> =
        BufReader::new(running.child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    let faults = lines.iter().filter(|line| line.contains("virtio device needs a reset")).count();
    assert!((1..=20).contains(&faults), "{lines:#?}");
}

#[test]
fn what_is_asked_for_is_no_crash_when_nobody_reads_it() {
    for args in [&["--help"][..], &["--version"], &["info"], &["qemu", "-help"], &["run", "--help"]]
    {
        let closed = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .args(args)
            .stdout(closed())
            .output()
            .unwrap();
        let full = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .args(args)
            .stdout(full())
            .output()
            .unwrap();

        let error = String::from_utf8_lossy(&full.stderr);
        assert_eq!((closed.status.code(), closed.stderr.len()), (Some(0), 0), "{args:?}");
        assert_eq!(full.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.starts_with("cloister: standard output: it cannot be written"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_mistake_that_cannot_be_told_is_still_exit_code_1() {
    for output in [Stdio::from(closed()), Stdio::from(full())] {
        let status = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .args(["run", "--kernel", "missing"])
            .stderr(output)
            .status()
            .unwrap();

        assert_eq!(status.code(), Some(1));
    }
}
