//! The `cloister` command as a user meets it: exit codes, and one line for each mistake.

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fixture::{Scratch, bzimage, bzimage_that_runs, cloister, says_twice, text};

#[test]
fn each_mistake_is_one_line_that_names_the_option_and_exit_code_1() {
    let scratch = Scratch::new("mistakes");
    let kernel = scratch.file("kernel", &bzimage());
    let empty = scratch.file("empty", b"");
    let script = scratch.file("script", b"#!/bin/sh\necho hello\n");
    let truncated = scratch.file("truncated", &bzimage()[..0x500]);
    let initrd = scratch.file("initrd", &vec![0; 4 << 20]);
    let section = "id=a,size=4K";
    let long = "x".repeat(2048);
    let cases: &[(&[&str], &str)] = &[
        (&["--kernel", "missing"], "--kernel: cannot read missing: No such file"),
        (&["--kernel", "."], "--kernel: . is not a regular file"),
        (&["--kernel", &empty], "--kernel: the file is empty"),
        (&["--kernel", &script], "--kernel: the file is neither a bzImage nor an ELF kernel"),
        (&["--kernel", &truncated], "--kernel: the file is cut short"),
        (&["--kernel", &kernel, "--initrd", "missing"], "--initrd: cannot read missing"),
        (&["--kernel", &kernel, "--initrd", &empty], "--initrd: "),
        (
            &["--kernel", &kernel, "--initrd", &initrd, "--memory", "5M"],
            "--initrd: the file has 4194304 bytes and beside the kernel there is room for 3145728",
        ),
        (&["--kernel", &kernel, "--append", &long], "--append: 2048 bytes are more than the 2047"),
        (&["--kernel", &kernel, "--memory", "0"], "--memory: 0 is no memory at all"),
        (&["--kernel", &kernel, "--memory", "64X"], "--memory: \"64X\" is not a size"),
        (&["--kernel", &kernel, "--memory", "4097K"], "--memory: 4097K is not a multiple"),
        (&["--kernel", &kernel, "--memory", "64T"], "--memory: 64T of RAM does not fit"),
        (&["--kernel", &kernel, "--memory", "1M"], "--memory: 1M of RAM is too little"),
        (&["--kernel", &kernel, "--cpus", "0"], "--cpus: \"0\" is not a number of processors"),
        (&["--kernel", &kernel, "--disk", "missing"], "--disk: cannot open missing: No such file"),
        (&["--kernel", &kernel, "--disk", "."], "--disk: "),
        (&["--kernel", &kernel, "--disk", &empty], "--disk: "),
        (&["--kernel", &kernel, "--sgx-epc", "id=a"], "--sgx-epc: the key size is missing"),
        (&["--kernel", &kernel, "--sgx-epc", "id=a,size=64X"], "--sgx-epc: size: \"64X\" is not"),
        (&["--kernel", &kernel, "--sgx-epc", "id=a,size=64M,x=1"], "--sgx-epc: unknown key \"x\""),
        (
            &["--kernel", &kernel, "--sgx-epc", section, "--sgx-epc", section],
            "--sgx-epc: the id a is given to two sections",
        ),
        (&["--kernel", &kernel, "--sgx-epc", "id=a,size=32T"], "--sgx-epc: the sections together"),
        (&["--kernel", &kernel, "--cpu", "qemu64"], "--cpu: \"qemu64\" is no CPU model"),
        (&["--kernel", &kernel, "--cpu", "host,+sgx3"], "--cpu: there is no flag sgx3: did you"),
        (&["--kernel", &kernel, "--cpu", "host,-sgx1,+sgx2"], "--cpu: sgx2 needs sgx1, which"),
        (&["--kernel", &kernel, "--cpu", "host,+sgx2"], "--cpu: +sgx2 is for guests with SGX"),
        (
            &["--kernel", &kernel, "--cpu", "host,-sgx", "--sgx-epc", section],
            "--cpu: -sgx takes SGX away and --sgx-epc gives it EPC",
        ),
        (&["--kernel", &kernel, "--launch-key", "12"], "--launch-key: \"12\" is no SHA-256"),
        (&["--kernel", &kernel, "--platform", &empty], "--platform: "),
        (
            &["--kernel", &kernel, "--platform", "missing/one"],
            "--platform: cannot make missing/one",
        ),
        (&["--kernel", &kernel, "--platform", "/proc/platform"], "--platform: cannot make /proc"),
        (
            &["--kernel", "missing", "--sgx-epc", section, "--platform", "made"],
            "--kernel: cannot read missing",
        ),
        (&["--kernel", &kernel, "--qmp", ""], "--qmp: \"\" is no Unix socket: write unix:PATH"),
        (&["--kernel", &kernel, "--qmp", "tcp:0:1"], "--qmp: \"tcp:0:1\" is no Unix socket"),
        (&["--kernel", &kernel, "--qmp", "unix:"], "--qmp: the path of the socket is missing"),
        (&["--kernel", &kernel, "--qmp", "unix:q,wait=1"], "--qmp: unknown option \"wait=1\""),
        (&["--kernel", &kernel, "--qmp", "unix:empty"], "--qmp: empty is there and is no socket"),
        (&["--kernel", &kernel, "--qmp", "unix:no/q"], "--qmp: cannot listen on no/q: No such"),
        (&["--kernel", &kernel, "--frobnicate"], "unexpected argument '--frobnicate' found"),
        (&[], "there is nothing to boot: add --kernel FILE, or --disk IMG"),
        (&["--disk", &script, "--append", "quiet"], "--append: it goes with --kernel: add"),
        (&["--disk", &script, "--initrd", &initrd], "--initrd: it goes with --kernel: add"),
    ];
    let before = fs::read_dir(&scratch.0).unwrap().count();

    for (args, start) in cases {
        let output = cloister(&[&["run"], *args].concat(), &scratch.0);

        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert_eq!((text(&output.stdout), error.lines().count()), ("", 1), "{args:?}: {error}");
        assert!(error.starts_with(&format!("cloister: {start}")), "{args:?}: {error}");
        assert!(!says_twice(error), "{args:?}: {error}");
    }
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), before, "files are left behind");
}

#[test]
fn a_ninth_section_is_refused() {
    let scratch = Scratch::new("ninth");
    let kernel = scratch.file("kernel", &bzimage());
    let sections: Vec<String> = (0..9).map(|n| format!("id=epc{n},size=1M")).collect();
    let mut args = vec!["run", "--kernel", &kernel];
    for section in &sections {
        args.extend(["--sgx-epc", section]);
    }

    let output = cloister(&args, &scratch.0);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "cloister: --sgx-epc: 9 EPC sections are more than the 8 that Linux reads: leave some out\n"
    );
}

#[test]
fn info_has_a_line_for_each_thing_and_the_accelerator() {
    let output = cloister(&["info"], Path::new("."));

    assert_eq!(output.status.code(), Some(0));
    let words: Vec<&str> =
        text(&output.stdout).lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        words,
        ["KVM", "SGX", "/dev/sgx_vepc", "/dev/sgx_enclave", "/dev/sgx_provision", "Accelerator"]
    );
}

/// A machine that idles, ended with the test.
struct Idle(Child);

impl Idle {
    fn start(scratch: &Scratch, args: &[&str]) -> Self {
        let kernel = scratch.file("vmlinuz", &bzimage_that_runs(&[]));
        let child = Command::new(env!("CARGO_BIN_EXE_cloister"))
            .args(["run", "--kernel", &kernel, "--cpus", "2"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Name and status of each thread, once the processors and their filters are there.
    fn threads(&self) -> Vec<(String, String)> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let tasks = format!("/proc/{}/task", self.0.id());
        loop {
            let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
            let threads: Vec<_> = fs::read_dir(&tasks)
                .unwrap()
                .map(|task| task.unwrap().path())
                .map(|task| (read(task.join("comm")).trim().to_owned(), read(task.join("status"))))
                .collect();
            let busy = |(name, status): &(String, String)| {
                name.starts_with("vcpu") && !status.contains("State:\tS")
            };
            let processors = threads.iter().filter(|(name, _)| name.starts_with("vcpu")).count();
            if processors == 2 && !threads.iter().any(busy) {
                return threads;
            }
            assert!(Instant::now() < deadline, "{threads:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A field of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

#[test]
fn every_thread_of_a_machine_that_runs_has_filters_and_no_capability() {
    let scratch = Scratch::new("confined");
    let machine = Idle::start(&scratch, &["--sgx-epc", "id=epc0,size=1M"]);

    let threads = machine.threads();

    let names: Vec<&str> = threads.iter().map(|(name, _)| &**name).collect();
    for kind in ["cloister", "signals", "console-input", "rtc", "vcpu0", "vcpu1"] {
        assert!(names.contains(&kind), "no thread {kind} among {names:?}");
    }
    for (name, status) in &threads {
        // Both of the main thread, and both of its own kind.
        let filters = if name == "cloister" { "2" } else { "4" };
        assert_eq!(field(status, "Seccomp"), "2", "{name}");
        assert_eq!(field(status, "Seccomp_filters"), filters, "{name}");
        assert_eq!(field(status, "NoNewPrivs"), "1", "{name}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(status, set), "0000000000000000", "{name} {set}");
        }
    }
}

#[test]
fn with_sandbox_off_no_thread_has_a_filter() {
    let scratch = Scratch::new("unconfined");
    let machine = Idle::start(&scratch, &["--sandbox", "off"]);

    let threads = machine.threads();

    assert!(threads.iter().all(|(_, status)| field(status, "Seccomp") == "0"), "{threads:#?}");
}
