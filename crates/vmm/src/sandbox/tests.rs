//! Confined threads, each in a process of its own: a filter is for good.
#![expect(
    unsafe_code,
    clippy::print_stdout,
    reason = "makes system calls by their numbers, and prints what they did"
)]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::time::Duration;
use std::{env, thread};

use cloister_devices::Rtc;
use cloister_devices::virtio::MmioTransport;
use cloister_fs::ITSELF;
use libc::c_long;

use super::*;
use crate::accel::Ioctls;
use crate::cli::RunWording;

/// Tells a test that it is the process to be confined, and what it is to do.
const TASK: &str = "CLOISTER_SANDBOX_TASK";

/// The same for a command that runs no machine.
const COMMAND_TASK: &str = "CLOISTER_SANDBOX_COMMAND";

/// The kinds of threads of a machine with a clock and a disk.
const KINDS: [ThreadKind; 9] = [
    ThreadKind::Main,
    ThreadKind::Vcpu,
    ThreadKind::Io,
    ThreadKind::Device("rtc"),
    ThreadKind::Console,
    ThreadKind::Stream,
    ThreadKind::Signals,
    ThreadKind::Qmp,
    ThreadKind::Gdb,
];

/// [`confined_process`] with a task.
fn confining(kind: ThreadKind, task: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "sandbox::tests::confined_process", "--nocapture"])
        .env(TASK, format!("{kind} {task}"));
    command
}

/// Runs it to its end.
fn confined(kind: ThreadKind, task: &str) -> Output {
    confining(kind, task).output().unwrap()
}

/// No test by itself: what [`confined`] starts.
#[test]
fn confined_process() {
    let Ok(task) = env::var(TASK) else { return };
    let (kind, task) = task.split_once(' ').unwrap();
    let kind = KINDS.into_iter().find(|known| known.name() == kind).unwrap();
    let disk = File::open(env::current_exe().unwrap()).unwrap();
    let node = MmioTransport::node(0, "blk", 0xd000_0000, 12).with_file(disk.as_raw_fd());
    let sandbox = Sandbox::new(0, &[Rtc::node(), node], &Ioctls::default(), &RunWording).unwrap();
    sandbox.enter(ThreadKind::Main).unwrap();
    let task = task.to_owned();
    let ended = thread::spawn(move || {
        sandbox.confine(kind);
        perform(&task.replace("disk", &disk.as_raw_fd().to_string()));
    });
    ended.join().unwrap();
}

/// Does what a task says.
fn perform(task: &str) {
    match task {
        "ordinary work" => ordinary_work(),
        "open" => {
            let error = File::open("/dev/null").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        "socket" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
        "execute" => drop(Command::new("true").status()),
        "code" => make_code(),
        "threads" => thread::spawn(|| println!("started")).join().unwrap(),
        "panic" => panic!("on purpose"),
        call => inject(call),
    }
}

/// No test by itself: what the test of commands and of processes beside the machine's starts.
#[test]
fn confined_command() {
    let Ok(task) = env::var(COMMAND_TASK) else { return };
    let (kind, task) = task.split_once(' ').unwrap();
    match kind {
        "beside" => confine_process(&[TIMES_OF_OPEN_FILES]).unwrap(),
        threads => confine_command(&[], threads == "many").unwrap(),
    }
    let place = |name: &CStr| name.as_ptr().expose_provenance().to_string();
    perform(&task.replace("itself", &place(ITSELF)).replace("another", &place(c"another")));
}

#[test]
fn a_confined_process_without_a_machine_can_do_what_it_is_for_alone() {
    for (task, lives) in [
        ("one ordinary work", true),
        ("one open", true),
        ("one socket", false),
        ("one execute", false),
        ("one code", false),
        ("one threads", false),
        ("many threads", true),
        ("many execute", false),
        // utimensat of no file: what of it is allowed comes back.
        (&format!("beside {TIMES_OF_OPEN_FILES} -1 itself 0 4096"), true),
        (&format!("beside {TIMES_OF_OPEN_FILES} -1 itself 0 0"), false),
        (&format!("beside {TIMES_OF_OPEN_FILES} -1 itself 0 256"), false),
        (&format!("beside {TIMES_OF_OPEN_FILES} -1 another 0 4096"), false),
        (&format!("beside {TIMES_OF_OPEN_FILES} -1 0 0 0"), false),
    ] {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "sandbox::tests::confined_command", "--nocapture"])
            // It runs on the thread that is confined.
            .arg("--test-threads=1")
            .env(COMMAND_TASK, task)
            .output()
            .unwrap();

        let stderr = String::from_utf8_lossy(&output.stderr);
        let signal = (!lives).then_some(libc::SIGSYS);
        assert_eq!(
            (output.status.success(), output.status.signal()),
            (lives, signal),
            "{task}: {stderr}"
        );
    }
}

/// Memory, time, output, locks and the end of a descriptor.
fn ordinary_work() {
    drop(io::stderr().as_fd().try_clone_to_owned().unwrap());
    let large: Vec<u8> = vec![1; 8 << 20];
    thread::sleep(Duration::from_millis(1));
    println!("{}", large.iter().map(|&byte| u64::from(byte)).sum::<u64>());
}

/// Makes a system call as a stolen process could: its number and its arguments, in decimal.
fn inject(call: &str) {
    let numbers: Vec<c_long> = call.split(' ').map(|number| number.parse().unwrap()).collect();
    let argument = |index: usize| numbers.get(index).copied().unwrap_or(0);
    // SAFETY: pointers among the arguments are null, or those of names.
    let returned = unsafe {
        libc::syscall(argument(0), argument(1), argument(2), argument(3), argument(4), argument(5))
    };
    println!("returned {returned}: {}", io::Error::last_os_error());
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
    for kind in KINDS {
        let output = confined(kind, "ordinary work");

        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{kind}: {} {stderr}", output.status);
        assert!(String::from_utf8_lossy(&output.stdout).contains("8388608"), "{kind}");
    }
}

#[test]
fn no_thread_can_open_a_file_and_none_dies_of_it() {
    for kind in KINDS {
        let output = confined(kind, "open");

        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn sockets_and_code_end_the_process_with_a_line() {
    for kind in KINDS {
        for task in ["socket", "code"] {
            let output = confined(kind, task);

            let stderr = String::from_utf8_lossy(&output.stderr);
            let line = stderr.lines().last().unwrap_or_default();
            assert_eq!(output.status.code(), Some(128 + libc::SIGSYS), "{kind} {task}: {stderr}");
            let start = format!("cloister: the sandbox stopped a thread ({kind}) at system call ");
            let end = ": report it, and write --sandbox off until it is fixed";
            assert!(line.starts_with(&start) && line.ends_with(end), "{kind} {task}: {line}");
        }
    }
}

#[test]
fn no_thread_can_start_a_program() {
    for kind in KINDS {
        let status = confined(kind, "execute").status;

        // The C library blocks signals before it starts a program, and then no handler runs.
        let reported = status.code() == Some(128 + libc::SIGSYS);
        assert!(reported || status.signal() == Some(libc::SIGSYS), "{kind}: {status}");
    }
}

/// How a process that makes a system call goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// A line, and the end.
    Ends,
    /// The call fails so.
    Fails(i32),
    /// The call does what it does.
    Succeeds,
}

/// System calls of a process that a guest has taken over, by the rows of docs/security.md.
#[test]
fn injected_calls_end_the_process_or_fail() {
    use Fate::{Ends, Fails, Succeeds};
    let name = c"/tmp".as_ptr() as c_long;
    let thread = c_long::from(
        libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD,
    );
    let cases: &[(&str, c_long, &[c_long], Fate)] = &[
        // Files by their names.
        ("unlink", libc::SYS_unlink, &[name], Ends),
        ("unlinkat", libc::SYS_unlinkat, &[-100, name, 0], Ends),
        ("rename", libc::SYS_rename, &[name, name], Ends),
        ("mkdir", libc::SYS_mkdir, &[name, 0], Ends),
        ("open", libc::SYS_open, &[name, 0], Fails(libc::EACCES)),
        ("openat", libc::SYS_openat, &[-100, name, 0], Fails(libc::EACCES)),
        ("chdir", libc::SYS_chdir, &[name], Ends),
        ("mount", libc::SYS_mount, &[name, name, 0, 0, 0], Ends),
        ("getcwd", libc::SYS_getcwd, &[0, 0], Fails(libc::EACCES)),
        // Limits.
        ("prlimit64 of another", libc::SYS_prlimit64, &[1, 3, 0, 0], Ends),
        ("prlimit64 to set", libc::SYS_prlimit64, &[0, 4, 1, 0], Ends),
        ("setrlimit", libc::SYS_setrlimit, &[4, 1], Ends),
        // Processes and namespaces.
        ("fork", libc::SYS_fork, &[], Ends),
        ("vfork", libc::SYS_vfork, &[], Ends),
        ("clone of a process", libc::SYS_clone, &[c_long::from(libc::SIGCHLD)], Ends),
        (
            "clone into a user's namespace",
            libc::SYS_clone,
            &[c_long::from(libc::CLONE_NEWUSER)],
            Ends,
        ),
        ("clone of another thread", libc::SYS_clone, &[thread], Ends),
        ("clone3", libc::SYS_clone3, &[0, 0], Fails(libc::ENOSYS)),
        ("unshare", libc::SYS_unshare, &[c_long::from(libc::CLONE_NEWUSER)], Ends),
        ("setns", libc::SYS_setns, &[0, 0], Ends),
        ("execve", libc::SYS_execve, &[name, 0, 0], Ends),
        // Others.
        ("kill", libc::SYS_kill, &[1, 0], Ends),
        ("tgkill of another", libc::SYS_tgkill, &[1, 1, 0], Ends),
        ("ptrace", libc::SYS_ptrace, &[16, 1, 0, 0], Ends),
        ("process_vm_readv", libc::SYS_process_vm_readv, &[1, 0, 0, 0, 0], Ends),
        ("pidfd_open", libc::SYS_pidfd_open, &[1, 0], Ends),
        ("socket", libc::SYS_socket, &[1, 1, 0], Ends),
        ("connect", libc::SYS_connect, &[0, 0, 0], Ends),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[1, 0], Ends),
        ("bpf", libc::SYS_bpf, &[0, 0, 0], Ends),
        ("userfaultfd", libc::SYS_userfaultfd, &[0], Ends),
        ("keyctl", libc::SYS_keyctl, &[0, 0, 0, 0, 0], Ends),
        // Of itself.
        ("TIOCSTI", libc::SYS_ioctl, &[0, libc::TIOCSTI as c_long, 0], Ends),
        ("prctl to be traced", libc::SYS_prctl, &[libc::PR_SET_PTRACER.into(), 1], Ends),
        ("fcntl to lock", libc::SYS_fcntl, &[0, libc::F_SETLK.into(), 0], Ends),
        ("seccomp with a listener", libc::SYS_seccomp, &[1, 8, 0], Ends),
        ("mprotect to execute", libc::SYS_mprotect, &[0, 4096, 4], Ends),
        ("memfd_create", libc::SYS_memfd_create, &[name, 0], Ends),
        ("ftruncate", libc::SYS_ftruncate, &[0, 0], Ends),
        ("getpid", libc::SYS_getpid, &[], Succeeds),
    ];
    for kind in KINDS {
        for &(call, number, arguments, fate) in cases {
            let words: Vec<String> =
                [&[number], arguments].concat().iter().map(c_long::to_string).collect();

            let output = confined(kind, &words.join(" "));

            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let found = match output.status.code() {
                Some(code) if code == 128 + libc::SIGSYS => {
                    assert!(stderr.contains(&format!("at system call {number}:")), "{stderr}");
                    Ends
                }
                Some(0) => match fate {
                    Fails(error) if stdout.contains(&format!("(os error {error})")) => fate,
                    _ => Succeeds,
                },
                _ => panic!("{kind} {call}: {} {stderr}", output.status),
            };
            assert_eq!(found, fate, "{kind} {call}: {stdout} {stderr}");
        }
    }
}

#[test]
fn only_the_io_thread_and_the_main_one_reach_disks() {
    for (call, number) in [
        ("pread64", libc::SYS_pread64),
        ("pwrite64", libc::SYS_pwrite64),
        ("fdatasync", libc::SYS_fdatasync),
        ("fallocate", libc::SYS_fallocate),
    ] {
        for (file, may) in [
            // The disk is open, to read.
            ("disk", [ThreadKind::Main, ThreadKind::Io].as_slice()),
            ("-1", &[ThreadKind::Main]),
        ] {
            for kind in KINDS {
                let output = confined(kind, &format!("{number} {file} 0 0 1"));

                let stdout = String::from_utf8_lossy(&output.stdout);
                let may = may.contains(&kind);
                let code = if may { 0 } else { 128 + libc::SIGSYS };
                assert_eq!(output.status.code(), Some(code), "{kind} {call} {file}: {stdout}");
                assert_eq!(stdout.contains("returned"), may, "{kind} {call} {file}: {stdout}");
            }
        }
    }
}

#[test]
fn what_every_thread_may_do_with_files_reaches_no_disk() {
    let copy = libc::F_DUPFD_CLOEXEC;
    for (call, number, arguments) in [
        ("write", libc::SYS_write, "FILE 0 0".to_owned()),
        // To read, and private.
        ("mmap", libc::SYS_mmap, "0 4096 1 2 FILE".to_owned()),
        ("fcntl to copy", libc::SYS_fcntl, format!("FILE {copy} 0")),
    ] {
        for kind in KINDS {
            for (file, ends) in [("disk", kind != ThreadKind::Main), ("1", false)] {
                let arguments = arguments.replace("FILE", file);
                let output = confined(kind, &format!("{number} {arguments}"));

                let code = if ends { 128 + libc::SIGSYS } else { 0 };
                assert_eq!(output.status.code(), Some(code), "{kind} {call} {file}: {output:?}");
            }
        }
    }
}

#[test]
fn a_processor_reads_no_file_and_the_io_thread_does_no_more_than_requests() {
    for (kind, number, ends) in [
        (ThreadKind::Vcpu, libc::SYS_read, true),
        (ThreadKind::Vcpu, libc::SYS_eventfd2, true),
        (ThreadKind::Vcpu, libc::SYS_lseek, true),
        (ThreadKind::Io, libc::SYS_lseek, true),
        (ThreadKind::Io, libc::SYS_accept4, true),
        (ThreadKind::Io, libc::SYS_membarrier, true),
        (ThreadKind::Io, libc::SYS_read, false),
        (ThreadKind::Vcpu, libc::SYS_membarrier, false),
    ] {
        let output = confined(kind, &format!("{number} -1 0 0"));

        let code = if ends { 128 + libc::SIGSYS } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{kind} {number}: {output:?}");
    }
}

#[test]
fn only_the_main_thread_starts_threads() {
    for kind in KINDS {
        let output = confined(kind, "threads");

        let started = String::from_utf8_lossy(&output.stdout).contains("started");
        assert_eq!(started, kind == ThreadKind::Main, "{kind}");
    }
}

#[test]
fn a_panic_is_no_fault_of_the_sandbox_whatever_the_environment_asks_for() {
    for style in ["0", "1", "full"] {
        let output = confining(ThreadKind::Vcpu, "panic").env("RUST_BACKTRACE", style).output();

        let output = output.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("on purpose") && !stderr.contains("the sandbox"), "{stderr}");
        assert_ne!(output.status.code(), Some(128 + libc::SIGSYS), "{style}: {stderr}");
    }
}

#[test]
fn without_a_sandbox_nothing_changes() {
    let sandbox = Sandbox::off();

    sandbox.enter(ThreadKind::Vcpu).unwrap();

    assert!(File::open("/dev/null").is_ok());
}

#[test]
fn a_host_that_has_no_more_open_files_is_fixed_by_their_limit() {
    for (reason, fix) in [
        (libc::EMFILE, "raise the limit of open files (ulimit -n)"),
        (libc::ENFILE, "raise the limit of open files (ulimit -n)"),
        (libc::EPERM, "write --sandbox off"),
    ] {
        let reason = || io::Error::from_raw_os_error(reason);
        for error in [
            SandboxError::Capabilities(reason()),
            SandboxError::Landlock(reason()),
            SandboxError::Limits(reason()),
            SandboxError::Keeper(reason()),
            SandboxError::Handler(reason()),
        ] {
            let line = RunWording.line(&error.complaint());
            assert!(
                line.starts_with("--sandbox: ") && line.ends_with(&format!(": {fix}")),
                "{line}"
            );
        }
    }
}
