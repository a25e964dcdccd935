//! The end of machines with hostile guests, whatever their devices are at, and what is left of the
//! process: nothing.

mod daemon;
mod guests;
#[path = "../fixture/kernel.rs"]
mod kernel;
mod process;
mod streams;
mod terminal;
#[path = "../fixture/virtio.rs"]
mod virtio;

use std::fs;
use std::io::{Read as _, pipe};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::signal::block_signal;

use crate::guests::{DEAF, DOTS, prints_gigabytes, reads_terabytes};
use crate::process::{Folder, LIMIT, Running, Way, machine, signal, sparse_disk};

#[test]
fn a_console_with_gigabytes_to_print_does_not_hold_up_the_end() {
    for way in [Way::Signal, Way::Monitor] {
        let folder = Folder::new("console");
        let mut running = Running::start(&folder, &mut machine(&folder, &prints_gigabytes()));

        let (took, status) = running.end(way);

        assert!(took < LIMIT, "{way:?}: {took:?}");
        assert_eq!(status.code(), Some(if way == Way::Signal { 128 + 15 } else { 0 }));
    }
}

#[test]
fn a_console_that_is_read_slowly_does_not_hold_up_the_end() {
    let folder = Folder::new("slow");
    let (mut reader, writer) = pipe().unwrap();
    let mut command = machine(&folder, &prints_gigabytes());
    let mut running = Running::start(&folder, command.stdout(writer));
    drop(command);
    thread::spawn(move || {
        let mut some = [0; 4096];
        while !matches!(reader.read(&mut some), Ok(0) | Err(_)) {
            thread::sleep(Duration::from_millis(10));
        }
    });

    let (took, _) = running.end(Way::Monitor);

    assert!(took < LIMIT, "{took:?}");
}

#[test]
fn a_disk_with_terabytes_to_read_does_not_hold_up_the_end() {
    for way in [Way::Signal, Way::Monitor] {
        let folder = Folder::new("disk");
        sparse_disk(&folder);
        let mut command = machine(&folder, &reads_terabytes());
        let mut running = Running::start(&folder, command.args(["--disk", "disk"]));

        let (took, status) = running.end(way);

        assert!(took < LIMIT, "{way:?}: {took:?}");
        assert_eq!(status.code(), Some(if way == Way::Signal { 128 + 15 } else { 0 }));
        assert!(!folder.0.join("qmp").exists());
    }
}

#[test]
fn standard_output_that_nobody_reads_does_not_hold_up_the_end() {
    for code in [DOTS.to_vec(), prints_gigabytes()] {
        for way in [Way::Signal, Way::Monitor] {
            let folder = Folder::new("unread");
            let mut command = machine(&folder, &code);
            let mut running = Running::start(&folder, command.stdout(Stdio::piped()));

            let (took, _) = running.end(way);

            assert!(took < LIMIT, "{way:?}: {took:?}");
        }
    }
}

#[test]
fn a_stopped_machine_and_clients_that_read_nothing_do_not_hold_up_the_end() {
    let folder = Folder::new("clients");
    let mut command = machine(&folder, &reads_terabytes());
    sparse_disk(&folder);
    command.args(["--disk", "disk", "--qmp", "unix:second", "--qmp", "unix:third"]);
    let mut running = Running::start(&folder, &mut command);
    let silent: Vec<_> = ["second", "third"]
        .map(|name| {
            let mut client = std::os::unix::net::UnixStream::connect(folder.0.join(name)).unwrap();
            let request = "{\"execute\":\"qmp_capabilities\"}".to_owned()
                + &"{\"execute\":\"stop\"}{\"execute\":\"query-commands\"}{\"execute\":\"cont\"}"
                    .repeat(300);
            std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
            client
        })
        .into();

    let (took, _) = running.end(Way::Signal);

    drop(silent);
    assert!(took < LIMIT, "{took:?}");
}

#[test]
fn an_early_signal_leaves_no_socket_and_no_pidfile() {
    for name in ["TERM", "INT", "KILL"] {
        for delay in (0..60).step_by(4) {
            let folder = Folder::new(&format!("early-{name}"));
            let command = || {
                let mut command = machine(&folder, DEAF);
                command.args(["--pidfile", "pid", "--serial", "unix:console,server=on,wait=off"]);
                command
            };
            let mut child = command().stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(Duration::from_millis(delay));

            signal(child.id(), name);
            child.wait().unwrap();

            // A killed process cannot remove them itself: another does, in a moment.
            let left = || ["qmp", "pid", "console"].map(|name| folder.0.join(name).exists());
            let await_none = || {
                let start = Instant::now();
                while left() != [false; 3] && start.elapsed() < Duration::from_secs(3) {
                    thread::sleep(Duration::from_millis(5));
                }
            };
            await_none();
            if name == "KILL" && left() != [false; 3] {
                // It was made and the other not told of it yet: the next machine takes its place.
                Running::start(&folder, &mut command()).end(Way::Signal);
                await_none();
            }
            assert_eq!(left(), [false; 3], "{name} after {delay} ms");
        }
    }
}

#[test]
fn a_machine_under_nohup_survives_the_terminal_and_not_the_other_signals() {
    let folder = Folder::new("nohup");
    let machine = machine(&folder, DEAF);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .arg(machine.get_program())
        .args(machine.get_args())
        .current_dir(&folder.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut running = Running::start(&folder, &mut command);

    signal(running.id(), "HUP");
    thread::sleep(Duration::from_millis(300));
    assert!(running.child.try_wait().unwrap().is_none());

    let (took, status) = running.end(Way::Signal);
    assert!(took < LIMIT, "{took:?}");
    assert_eq!(status.code(), Some(128 + 15));
}

#[test]
fn signals_that_the_starter_has_blocked_end_the_machine() {
    for (name, number) in [("HUP", 1), ("INT", 2), ("QUIT", 3), ("TERM", 15)] {
        let folder = Folder::new(&format!("blocked-{name}"));
        // What is blocked is the thread's, and of what it starts.
        let start = || {
            block_signal(number).unwrap();
            Running::start(&folder, &mut machine(&folder, DEAF))
        };
        let mut running = thread::scope(|scope| scope.spawn(start).join().unwrap());

        signal(running.id(), name);
        let (took, status) = running.wait(Instant::now());

        assert!(took < LIMIT, "{name}: {took:?}");
        assert_eq!(status.code(), Some(128 + number));
    }
}

#[test]
fn one_thread_does_the_work_of_all_devices() {
    let folder = Folder::new("threads");
    sparse_disk(&folder);
    let mut command = machine(&folder, &reads_terabytes());
    command.args(["--cpus", "2", "--disk", "disk,readonly", "--disk", "disk,readonly"]);

    let running = Running::start(&folder, &mut command);

    let tasks = fs::read_dir(format!("/proc/{}/task", running.id())).unwrap();
    let mut names: Vec<String> = tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| name == "io" || name.starts_with("vcpu"))
        .collect();
    names.sort();
    assert_eq!(names, ["io", "vcpu0", "vcpu1"]);
}

#[test]
fn the_process_has_nothing_of_its_starter() {
    let folder = Folder::new("inherited");
    let secret = fs::File::create(folder.0.join("secret")).unwrap();
    fs::write(folder.0.join("image"), [0; 512]).unwrap();
    let image = fs::File::open(folder.0.join("image")).unwrap();
    for file in [&secret, &image] {
        rustix::io::fcntl_setfd(file.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    }
    let mut command = machine(&folder, DEAF);
    let by_descriptor = format!("/dev/fd/{},readonly", std::os::fd::AsRawFd::as_raw_fd(&image));
    command.args(["--disk", &by_descriptor]).env("SECRET", "of-the-starter");

    let running = Running::start(&folder, &mut command);

    let of = |name: &str| format!("/proc/{}/{name}", running.id());
    let open: Vec<_> = fs::read_dir(of("fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    let environment = fs::read(of("environ")).unwrap();
    let limits = fs::read_to_string(of("limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert!(!open.contains(&folder.0.join("secret")), "{open:?}");
    // The machine's, which its device shares, and not the one that was inherited.
    let images = open.iter().filter(|path| **path == folder.0.join("image")).count();
    assert_eq!(images, 1, "{open:?}");
    assert!(environment.iter().all(|&byte| byte == 0));
    // The starter may have forbidden more.
    assert!(["0 0", "1 1"].contains(&&*limit("Max core file size")), "{limits}");
    assert_eq!(limit("Max file size"), format!("{0} {0}", (1 << 30) + 512));
}
