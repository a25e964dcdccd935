//! Confined threads, each in a process of its own: a filter is for good.
#![expect(unsafe_code, clippy::print_stdout, reason = "maps memory, and prints what it did")]

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::time::Duration;
use std::{env, thread};

use super::*;

/// Tells a test that it is the process to be confined, and what it is to do.
const TASK: &str = "CLOISTER_SANDBOX_TASK";

/// Runs [`confined_process`] with a task.
fn confined(kind: ThreadKind, task: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "sandbox::tests::confined_process", "--nocapture"])
        .env(TASK, format!("{kind} {task}"))
        .output()
        .unwrap()
}

/// No test by itself: what [`confined`] starts.
#[test]
fn confined_process() {
    let Ok(task) = env::var(TASK) else { return };
    let (kind, task) = task.split_once(' ').unwrap();
    let kind = ThreadKind::ALL.into_iter().find(|known| known.name() == kind).unwrap();
    let sandbox = Sandbox::new().unwrap();
    sandbox.enter(ThreadKind::Main).unwrap();
    let task = task.to_owned();
    let ended = thread::spawn(move || {
        sandbox.confine(kind);
        match &*task {
            "ordinary work" => ordinary_work(),
            "open" => {
                let error = File::open("/dev/null").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            }
            "socket" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
            "execute" => drop(Command::new("true").status()),
            "code" => make_code(),
            _ => panic!("{task}"),
        }
    });
    ended.join().unwrap();
}

/// Memory, time, output, locks and the end of a descriptor.
fn ordinary_work() {
    drop(io::stderr().as_fd().try_clone_to_owned().unwrap());
    let large: Vec<u8> = vec![1; 8 << 20];
    thread::sleep(Duration::from_millis(1));
    println!("{}", large.iter().map(|&byte| u64::from(byte)).sum::<u64>());
}

/// Memory that can be executed.
fn make_code() {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let rights = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: a new mapping, at an address that the kernel chooses and nothing uses.
    let _ = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, rights, MapFlags::PRIVATE) };
}

#[test]
fn every_kind_of_thread_can_do_ordinary_work() {
    for kind in ThreadKind::ALL {
        let output = confined(kind, "ordinary work");

        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{kind}: {} {stderr}", output.status);
        assert!(String::from_utf8_lossy(&output.stdout).contains("8388608"), "{kind}");
    }
}

#[test]
fn no_thread_can_open_a_file_and_none_dies_of_it() {
    for kind in ThreadKind::ALL {
        let output = confined(kind, "open");

        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn sockets_and_code_end_the_process_with_a_line() {
    for kind in ThreadKind::ALL {
        for task in ["socket", "code"] {
            let output = confined(kind, task);

            let stderr = String::from_utf8_lossy(&output.stderr);
            let line = stderr.lines().last().unwrap_or_default();
            assert_eq!(output.status.code(), Some(128 + libc::SIGSYS), "{kind} {task}: {stderr}");
            let start = format!("cloister: the sandbox stopped a thread ({kind}) at system call ");
            assert!(line.starts_with(&start), "{kind} {task}: {line}");
        }
    }
}

#[test]
fn no_thread_can_start_a_program() {
    for kind in ThreadKind::ALL {
        let status = confined(kind, "execute").status;

        // The C library blocks signals before it starts a program, and then no handler runs.
        let reported = status.code() == Some(128 + libc::SIGSYS);
        assert!(reported || status.signal() == Some(libc::SIGSYS), "{kind}: {status}");
    }
}

#[test]
fn without_a_sandbox_nothing_changes() {
    let sandbox = Sandbox::off();

    sandbox.enter(ThreadKind::Vcpu).unwrap();

    assert!(File::open("/dev/null").is_ok());
}
