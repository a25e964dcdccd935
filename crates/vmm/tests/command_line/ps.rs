//! `cloister ps`, and machines by their names.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::{Scratch, bzimage_that_runs, text};

/// How long a machine may take until it is listed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command of a user whose runtime directory is `directory`.
fn command(args: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command.args(args).current_dir(directory).env("XDG_RUNTIME_DIR", directory);
    command.stdin(Stdio::null());
    command
}

fn cloister(args: &[&str], directory: &Path) -> Output {
    command(args, directory).output().unwrap()
}

/// A machine that idles, ended with the test.
struct Idle(Child);

impl Idle {
    fn start(args: &[&str], directory: &Path) -> Self {
        let run = ["run", "--kernel", "kernel", "--memory", "4M"];
        Self(command(&[&run, args].concat(), directory).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The names that are listed, as soon as there are so many.
fn names(count: usize, directory: &Path) -> Vec<String> {
    let start = Instant::now();
    loop {
        let output = cloister(&["ps", "--json"], directory);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let lines = text(&output.stdout).lines();
        let name = |line| {
            let machine: serde_json::Value = serde_json::from_str(line).unwrap();
            machine["name"].as_str().unwrap().to_owned()
        };
        let names: Vec<String> = lines.map(name).collect();
        if names.len() == count {
            return names;
        }
        assert!(start.elapsed() < PATIENCE, "{names:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn machines_are_listed_until_they_end_and_known_by_their_names() {
    let scratch = Scratch::new("ps");
    scratch.file("kernel", &bzimage_that_runs(&[]));
    let directory = scratch.0.as_path();
    let epc = ["--sgx-epc", "id=a,size=1M"];
    let monitor = ["--name", "web", "--qmp", "unix:socket"];
    let web = Idle::start(&[&monitor[..], &epc].concat(), directory);
    let first = names(1, directory);
    let other = Idle::start(&["--name", "other"], directory);
    let mut both = names(2, directory);
    both.sort_unstable();

    let table = cloister(&["ps"], directory);
    let shown = cloister(&["epc", "web", "--once"], directory);
    let by_number = cloister(&["epc", &other.0.id().to_string(), "--once"], directory);
    let missing = cloister(&["epc", "nobody", "--once"], directory);
    // SIGKILL.
    drop(other);
    let left = names(1, directory);
    drop(web);

    assert_eq!(
        (first, both, left),
        (
            vec!["web".to_owned()],
            vec!["other".to_owned(), "web".to_owned()],
            vec!["web".to_owned()]
        )
    );
    let table = text(&table.stdout);
    assert!(table.starts_with("PID ") && table.lines().count() == 3, "{table}");
    let line = table.lines().find(|line| line.contains(" web ")).unwrap();
    let socket = directory.join("socket");
    assert!(line.contains(" 4M ") && line.ends_with(socket.to_str().unwrap()), "{line}");
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    assert!(text(&shown.stdout).contains("web"), "{}", text(&shown.stdout));
    // It has a monitor that nobody asked for, and no SGX.
    assert_eq!(text(&by_number.stderr), "");
    let message = text(&missing.stderr);
    assert!(message.starts_with("cloister: nobody: ") && message.lines().count() == 1, "{message}");
    assert_eq!(names(0, directory), [""; 0]);
    assert_eq!(fs::read_dir(directory.join("cloister")).unwrap().count(), 0);
}

#[test]
fn a_machine_whose_runtime_directory_has_no_room_for_a_socket_is_listed_without() {
    let scratch = Scratch::new("ps-long");
    scratch.file("kernel", &bzimage_that_runs(&[]));
    let directory = scratch.0.join("d".repeat(108));
    fs::create_dir(&directory).unwrap();
    fs::copy(scratch.0.join("kernel"), directory.join("kernel")).unwrap();
    let machine = Idle::start(&["--name", "deep"], &directory);
    let listed = names(1, &directory);

    let shown = cloister(&["epc", "deep", "--once"], &directory);
    drop(machine);

    let line = "cloister: deep: the machine has no monitor, as its XDG_RUNTIME_DIR was no place for a socket: start it \
                with another\n";
    assert_eq!(listed, ["deep"]);
    assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(1), line));
}

#[test]
fn a_folder_of_others_is_a_warning_to_machines_and_an_error_of_the_list() {
    let scratch = Scratch::new("ps-foreign");
    // UD2, for which there is no handler.
    scratch.file("kernel", &bzimage_that_runs(&[0x0f, 0x0b]));
    scratch.file("cloister", b"not a folder");
    let run = ["run", "--no-reboot", "--kernel", "kernel", "--memory", "4M"];

    let machine = cloister(&run, &scratch.0);
    let list = cloister(&["ps"], &scratch.0);

    let fix = "is not a folder that only you have: remove it, or let XDG_RUNTIME_DIR name one\n";
    for output in [&machine, &list] {
        assert!(text(&output.stderr).ends_with(fix), "{}", text(&output.stderr));
    }
    assert_eq!((machine.status.code(), list.status.code()), (Some(2), Some(1)));
}
