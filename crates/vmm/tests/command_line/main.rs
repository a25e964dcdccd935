//! The `cloister` command as a user meets it: exit codes, and one line for each mistake.

#[path = "../fixture/mod.rs"]
mod fixture;
mod ps;
mod seed;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use fixture::{Scratch, bzimage, bzimage_that_runs, cloister, says_twice, text};

#[test]
fn each_mistake_is_one_line_that_names_the_option_and_exit_code_1() {
    let scratch = Scratch::new("mistakes");
    let kernel = scratch.file("kernel", &bzimage());
    let empty = scratch.file("empty", b"");
    let script = scratch.file("script", b"#!/bin/sh\necho hello\n");
    let truncated = scratch.file("truncated", &bzimage()[..0x500]);
    let initrd = scratch.file("initrd", &vec![0; 4 << 20]);
    let qcow2 = scratch.file("qcow2", &[&b"QFI\xfb\0\0\0\x03"[..], &[0; 1024]].concat());
    scratch.file("vmdk", &[&b"KDMV\x01\0\0\0"[..], &[0; 1024]].concat());
    let flat = "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
                RW 8192 FLAT \"initrd\" 0\n";
    scratch.file("flat", flat.as_bytes());
    scratch.file("top", &qcow2_on("/etc/base.img"));
    symlink("/dev/null", scratch.0.join("null")).unwrap();
    fs::hard_link(&initrd, scratch.0.join("linked")).unwrap();
    let section = "id=a,size=4K";
    let no_size_zero = "--disk: /dev/zero: The disk image has no size: it is neither a file nor";
    let no_size_null = "--disk: /dev/null: The disk image has no size: it is neither a file nor";
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
        (
            &["--kernel", &kernel, "--memory", "0"],
            "--memory: 0 is no memory at all: write a size of at least 2M",
        ),
        (&["--kernel", &kernel, "--memory", "64X"], "--memory: \"64X\" is not a size"),
        (&["--kernel", &kernel, "--memory", "4097K"], "--memory: 4097K is not a multiple"),
        (&["--kernel", &kernel, "--memory", "64T"], "--memory: 64T of RAM does not fit"),
        (&["--kernel", &kernel, "--memory", "1M"], "--memory: 1M of RAM is too little"),
        (&["--kernel", &kernel, "--cpus", "0"], "--cpus: \"0\" is not a number of processors"),
        (&["--kernel", &kernel, "--disk", "missing"], "--disk: cannot open missing: No such file"),
        (&["--kernel", &kernel, "--disk", "."], "--disk: "),
        (&["--kernel", &kernel, "--disk", &empty], "--disk: "),
        (&["--kernel", &kernel, "--disk", "/dev/zero"], no_size_zero),
        (&["--kernel", &kernel, "--disk", "/dev/null,readonly"], no_size_null),
        (&["--kernel", &kernel, "--sgx-epc", "id=a"], "--sgx-epc: the key size is missing"),
        (&["--kernel", &kernel, "--sgx-epc", "id=a,size=64X"], "--sgx-epc: size: \"64X\" is not"),
        (&["--kernel", &kernel, "--sgx-epc", "id=a,size=64M,x=1"], "--sgx-epc: unknown key \"x\""),
        (
            &["--kernel", &kernel, "--sgx-epc", section, "--sgx-epc", section],
            "--sgx-epc: the id a is given to two sections",
        ),
        (&["--kernel", &kernel, "--sgx-epc", "id=a,size=32T"], "--sgx-epc: the sections together"),
        (
            &["--kernel", &kernel, "--epc-quota", "1M"],
            "--epc-quota: it is for guests with SGX, which EPC makes: add --sgx-epc, or",
        ),
        (
            &["--kernel", &kernel, "--sgx-epc", section, "--epc-quota", "-1"],
            "--epc-quota: \"-1\" is not a size: write a number and",
        ),
        (
            &[
                "--kernel",
                &kernel,
                "--sgx-epc",
                section,
                "--epc-quota",
                "4K",
                "--epc-reserve",
                "8K",
            ],
            "--epc-reserve: 8K is more than the 4K of --epc-quota: write a smaller size, or",
        ),
        (
            &["--kernel", &kernel, "--sgx-epc", section, "--epc-reserve", "1T"],
            "--epc-reserve: 1T is more than the ",
        ),
        (&["--kernel", &kernel, "--cpu", "qemu64"], "--cpu: \"qemu64\" is not a CPU model"),
        (&["--kernel", &kernel, "--cpu", "host,+sgx3"], "--cpu: there is no flag sgx3: did you"),
        (&["--kernel", &kernel, "--cpu", "host,-sgx1,+sgx2"], "--cpu: sgx2 needs sgx1, which"),
        (&["--kernel", &kernel, "--cpu", "host,+sgx2"], "--cpu: +sgx2 is for guests with SGX"),
        (
            &["--kernel", &kernel, "--cpu", "host,-sgx", "--sgx-epc", section],
            "--cpu: -sgx takes SGX away and --sgx-epc gives it EPC",
        ),
        (&["--kernel", &kernel, "--launch-key", "12"], "--launch-key: \"12\" is not the SHA-256"),
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
        (&["--kernel", &kernel, "--qmp", ""], "--qmp: \"\" is not a Unix socket: write unix:PATH"),
        (&["--kernel", &kernel, "--qmp", "tcp:0:1"], "--qmp: \"tcp:0:1\" is not a Unix socket"),
        (&["--kernel", &kernel, "--qmp", "unix:"], "--qmp: the path of the socket is missing"),
        (&["--kernel", &kernel, "--qmp", "unix:q,wait=1"], "--qmp: unknown option \"wait=1\""),
        (&["--kernel", &kernel, "--qmp", "unix:empty"], "--qmp: empty exists and is not a socket"),
        (&["--kernel", &kernel, "--qmp", "unix:no/q"], "--qmp: cannot listen on no/q: No such"),
        (&["--kernel", &kernel, "-m", "2G"], "-m: it is an option of QEMU: write cloister qemu"),
        (&["--kernel", &kernel, "--disk", &qcow2], "--disk: "),
        (&["--kernel", &kernel, "--disk", "qcow2"], "--disk: qcow2: its cluster size cannot be: "),
        (
            &["--kernel", &kernel, "--disk", "vmdk"],
            "--disk: vmdk: its grain size cannot be: convert it with qemu-img convert -O qcow2",
        ),
        (
            &["--kernel", &kernel, "--disk", "flat"],
            "--disk: flat: its data are in initrd, and no file is opened because an image says so: \
             give that file, with format=raw",
        ),
        (
            &["--kernel", &kernel, "--disk", "flat,backing=initrd"],
            "--disk: flat is not based on another file, and one is named for it: leave that out",
        ),
        (
            &["--kernel", &kernel, "--disk", "script,format=qcow2"],
            "--disk: script: it is not a qcow2 image: name its format, or leave it out",
        ),
        (
            &["--kernel", &kernel, "--disk", "script,format=vmdk"],
            "--disk: script: it is not a vmdk image: name its format, or leave it out",
        ),
        (
            &["--kernel", &kernel, "--disk", "initrd,snapshot=1"],
            "--disk: snapshot is on or off, not",
        ),
        (
            &["--kernel", &kernel, "--disk", "initrd,backing=script"],
            "--disk: initrd is not based on another file, and one is named for it: leave that out",
        ),
        (
            &["--kernel", &kernel, "--disk", "top"],
            "--disk: top is based on /etc/base.img, and no file is opened because an image says \
             so: add ,backing=FILE",
        ),
        (
            &["--kernel", &kernel, "--disk", "top,backing=initrd"],
            "--disk: the format of initrd is not known: add ,backing-format=raw,",
        ),
        (
            &["--kernel", &kernel, "--disk", "top,backing=missing,backing-format=raw"],
            "--disk: cannot open missing: No such file",
        ),
        (
            &["--kernel", &kernel, "--disk", "top,backing=initrd,backing-format=raw,backing=vmdk"],
            "--disk: initrd is not based on another file, and one is named for it",
        ),
        (
            &["--kernel", &kernel, "--disk", "top,backing=top,backing-format=qcow2"],
            "--disk: top is in use by another machine or program",
        ),
        (
            &[
                "--kernel",
                &kernel,
                "--disk",
                "top,backing=initrd,backing-format=raw",
                "--pidfile",
                "linked",
            ],
            "--pidfile: linked is the file of --disk too: name another",
        ),
        (&["--kernel", &kernel, "--disk", &initrd, "--disk", &initrd], "--disk: "),
        (&["--kernel", &kernel, "--serial", "pty"], "--serial: QEMU has pty here and Cloister"),
        (&["--kernel", &kernel, "--serial", "file:no/log"], "--serial: cannot make no/log: No"),
        (&["--kernel", &kernel, "--pidfile", "no/pid"], "--pidfile: cannot write no/pid: No such"),
        (&["--kernel", &kernel, "--pidfile", "null"], "--pidfile: null is not a regular file"),
        (
            &["--kernel", &kernel, "--pidfile", "script"],
            "--pidfile: script exists and is not a pidfile",
        ),
        (
            &["--kernel", &kernel, "--pidfile", "kernel"],
            "--pidfile: kernel is the file of --kernel",
        ),
        (
            &["--kernel", &kernel, "--serial", "file:kernel"],
            "--serial: kernel is the file of --ker",
        ),
        (
            &["--kernel", &kernel, "--initrd", &initrd, "--serial", "file:linked"],
            "--serial: linked is the file of --initrd too: name another",
        ),
        (
            &["--kernel", &kernel, "--disk", &initrd, "--serial", "file:./linked"],
            "--serial: ./linked is the file of --disk too: name another",
        ),
        (
            &["--kernel", &kernel, "--pidfile", "new", "--serial", "file:./new"],
            "--pidfile: new is the file of --serial too: name another",
        ),
        (
            &["--kernel", &kernel, "--qmp", "unix:q", "--qmp", "unix:./q"],
            "--qmp: ./q is given twice: leave one out, or name another",
        ),
        (
            &["--kernel", &kernel, "--qmp", "unix:q", "--serial", "unix:q,server=on"],
            "--serial: q is the file of --qmp too: name another",
        ),
        (&["--kernel", &kernel, "--name", "a,b=c"], "--name: there is no key b: the keys are"),
        (
            &["--kernel", &kernel, "--daemonize", "--serial", "stdio"],
            "--serial: stdio is the terminal, which --daemonize leaves",
        ),
        (&["--kernel", "missing", "--daemonize"], "--kernel: cannot read missing: No such file"),
        (&["--kernel", &kernel, "--platform", "/"], "--platform: / is not a platform, and open to"),
        (&["--kernel", "x\ny\u{1b}"], r"--kernel: cannot read x\ny\u{1b}: No such"),
        (&["--kernel", &kernel, "--initrd", "x\ny"], r"--initrd: cannot read x\ny: No such"),
        (&["--kernel", &kernel, "--disk", "x\ny"], r"--disk: cannot open x\ny: No such"),
        (&["--kernel", &kernel, "--qmp", "unix:no\n/q"], r"--qmp: cannot listen on no\n/q: No"),
        (&["--kernel", &kernel, "--name", "a,process="], "--name: process: the name is empty"),
        (&["--kernel", &kernel, "--name", ",process=x"], "--name: guest: the name is empty"),
        (&["-hda", &initrd], "-hda: it is an option of QEMU: write cloister qemu -hda"),
        (&["--kernel", &kernel, "--frobnicate"], "unexpected argument '--frobnicate' found"),
        (&[], "there is nothing to boot: add --kernel FILE, or --disk IMG"),
        (&["--disk", &script, "--append", "quiet"], "--append: it goes with --kernel: add"),
        (&["--disk", &script, "--initrd", &initrd], "--initrd: it goes with --kernel: add"),
    ];
    let before = contents(&scratch.0);

    for (args, start) in cases {
        let output = cloister(&[&["run"], *args].concat(), &scratch.0);

        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert_eq!((text(&output.stdout), error.lines().count()), ("", 1), "{args:?}: {error}");
        assert!(error.starts_with(&format!("cloister: {start}")), "{args:?}: {error}");
        assert!(!says_twice(error), "{args:?}: {error}");
    }
    assert!(contents(&scratch.0) == before, "files are left behind, or changed");
}

/// A qcow2 image of 64 KiB, with clusters of 512 bytes, that says that it is based on a file.
fn qcow2_on(name: &str) -> Vec<u8> {
    let mut bytes = vec![0; 4 * 512];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(8, &112_u64.to_be_bytes());
    put(16, &(name.len() as u32).to_be_bytes());
    put(112, name.as_bytes());
    put(20, &9_u32.to_be_bytes());
    put(24, &(64_u64 << 10).to_be_bytes());
    // The L1 table with two entries, the refcount table, and refcounts.
    put(36, &2_u32.to_be_bytes());
    put(40, &(3 * 512_u64).to_be_bytes());
    put(48, &512_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(512, &1024_u64.to_be_bytes());
    for cluster in 0..4 {
        put(1024 + 2 * cluster, &1_u16.to_be_bytes());
    }
    bytes
}

/// What is in the files of a directory.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_name_of_any_length_is_a_line_of_at_most_1000_characters() {
    let name = format!("unix:{}", "x".repeat(50_000));

    let output = cloister(&["epc", &name, "--metrics", &name], Path::new("."));

    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.len() <= "cloister: \n".len() + 1000, "{}", error.len());
    assert!(error.lines().count() == 1 && error.contains("xxx...xxx"), "{error}");
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
    let nodes = ["/dev/sgx_vepc", "/dev/sgx_enclave", "/dev/sgx_provision"];
    assert_eq!(words, [&["KVM", "SGX"], &nodes[..], &["Accelerator", "Automatic"]].concat());
}

/// Runs the command on a host that answers membarrier(2) as one without it.
fn cloister_without_membarrier(args: &[&str], directory: &Path) -> Output {
    let refuse = BTreeMap::from([(libc::SYS_membarrier, Vec::new())]);
    let (allow, no_such_call) = (SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32));
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(refuse, allow, no_such_call, architecture).unwrap();
    let program = BpfProgram::try_from(filter).unwrap();
    // The filter is the thread's, and of what it starts.
    let run = || {
        seccompiler::apply_filter(&program).unwrap();
        cloister(args, directory)
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn a_host_without_membarrier_runs_one_processor_and_refuses_two_in_one_line() {
    let scratch = Scratch::new("membarrier");
    // UD2, for which there is no handler.
    let kernel = scratch.file("kernel", &bzimage_that_runs(&[0x0f, 0x0b]));
    let run = ["run", "--no-reboot", "--kernel", &kernel, "--cpus"];

    let one = cloister_without_membarrier(&[&run[..], &["1"]].concat(), &scratch.0);
    let two = cloister_without_membarrier(&[&run[..], &["2"]].concat(), &scratch.0);

    assert_eq!((one.status.code(), two.status.code()), (Some(2), Some(1)), "{one:?}\n{two:?}");
    let message = text(&two.stderr);
    let start = "cloister: --cpus: several processors need membarrier(2), which fails here: ";
    assert!(message.starts_with(start), "{message}");
    assert!(message.contains(": use --cpus 1, or ") && message.lines().count() == 1, "{message}");
}

/// Runs the command under a limit of the size of files, in blocks of sh(1), as `ulimit` sets it.
fn cloister_with_small_files(ulimit: &str, args: &[&str], directory: &Path) -> Output {
    Command::new("sh")
        .args(["-c", &format!("{ulimit} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_cloister")])
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_limit_of_files_leaves_ram_alone_or_is_named_in_one_line() {
    let scratch = Scratch::new("file-limit");
    let kernel = scratch.file("kernel", &bzimage_that_runs(&[0x0f, 0x0b]));
    let run = ["run", "--no-reboot", "--memory", "16M", "--kernel", &kernel];

    let soft = cloister_with_small_files("ulimit -S -f 100", &run, &scratch.0);
    let hard = cloister_with_small_files("ulimit -f 100", &run, &scratch.0);

    assert_eq!((soft.status.code(), hard.status.code()), (Some(2), Some(1)), "{soft:?}\n{hard:?}");
    let message = text(&hard.stderr);
    let start = "cloister: --memory: 16M of RAM are more than the ";
    assert!(message.starts_with(start) && message.lines().count() == 1, "{message}");
    assert!(
        message.ends_with("raise the limit (ulimit -f) or write a smaller size\n"),
        "{message}"
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

    /// Name and status of each thread, once all are there, have their names and filters, and wait.
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
            let busy = |(_, status): &(String, String)| !status.contains("State:\tS");
            let named = |start| threads.iter().filter(|(name, _)| name.starts_with(start)).count();
            // A thread has the name of the one that started it until it runs.
            let settled = (named("vcpu"), named("cloister"), named("machine")) == (2, 1, 1);
            if settled && !threads.iter().any(busy) {
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
    for kind in ["cloister", "machine", "signals", "console-input", "rtc", "vcpu0", "vcpu1"] {
        assert!(names.contains(&kind), "no thread {kind} among {names:?}");
    }
    for (name, status) in &threads {
        // Those of the main thread, and those of its own kind.
        let filters = if matches!(&**name, "cloister" | "machine") { "3" } else { "6" };
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

#[test]
fn images_that_are_not_read_are_refused_with_what_to_do_unless_they_are_called_raw() {
    let scratch = Scratch::new("formats");
    // UD2, for which there is no handler.
    let kernel = scratch.file("kernel", &bzimage_that_runs(&[0x0f, 0x0b]));
    let mut vdi = vec![0; 1024];
    vdi[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
    for (start, format) in [(&b"QED\0"[..], "qed"), (b"vhdxfile", "vhdx"), (&vdi, "vdi")] {
        let image = [start, &[0; 1024]].concat();
        scratch.file("image", &image);
        let run = |disk: &str| {
            cloister(&["run", "--no-reboot", "--kernel", &kernel, "--disk", disk], &scratch.0)
        };
        let qemu = |drive: &str| {
            cloister(&["qemu", "-no-reboot", "-kernel", &kernel, "-drive", drive], &scratch.0)
        };

        let refused = [run("image"), qemu("file=image,if=virtio")];
        let taken = [run("image,format=raw"), qemu("file=image,if=virtio,format=raw")];

        let fix = format!("convert it with qemu-img convert -f {format} -O qcow2");
        for (output, line) in refused.iter().zip([
            format!("--disk: image is a {format} image, which is not read: {fix}"),
            format!(
                "-drive: image: QEMU reads {format} and Cloister raw, qcow2 and vmdk only: {fix}"
            ),
        ]) {
            assert_eq!(text(&output.stderr), format!("cloister: {line}\n"));
            assert_eq!(output.status.code(), Some(1));
        }
        for output in taken {
            assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        }
    }
}

#[test]
fn a_disk_of_a_machine_that_runs_is_refused_by_name_and_readers_share() {
    let scratch = Scratch::new("locks");
    let kernel = scratch.file("kernel", &bzimage());
    scratch.file("image", &[0; 4096]);
    let image = scratch.0.join("image");
    let image = image.to_str().unwrap();
    let readonly = format!("{image},readonly");
    let twice =
        cloister(&["run", "--kernel", &kernel, "--disk", "image", "--disk", image], &scratch.0);
    let shared = Idle::start(&scratch, &["--disk", &readonly, "--disk", &readonly]);
    shared.threads();

    let writer = cloister(&["run", "--kernel", &kernel, "--disk", "image"], &scratch.0);
    drop(shared);
    let owner = Idle::start(&scratch, &["--disk", image]);
    owner.threads();
    let reader = cloister(
        &["qemu", "-kernel", &kernel, "-drive", "file=image,if=virtio,readonly=on"],
        &scratch.0,
    );

    assert_eq!(
        text(&twice.stderr),
        format!(
            "cloister: --disk: {image} is given twice: \
             leave one out, or add ,readonly after both\n"
        )
    );
    assert_eq!(
        text(&writer.stderr),
        "cloister: --disk: image is in use by another machine or program: end it, or add ,readonly \
         after the image for all that have it\n"
    );
    assert_eq!(
        text(&reader.stderr),
        "cloister: -drive: image is in use by another machine or program: end it, or wait until it \
         no longer writes to it\n"
    );
}

#[test]
fn sockets_of_a_machine_that_runs_are_refused_and_stay() {
    let scratch = Scratch::new("sockets");
    let kernel = scratch.file("kernel", &bzimage());
    let [monitor, console] = ["monitor", "console"].map(|name| scratch.0.join(name));
    let qmp = format!("unix:{}", monitor.display());
    let serial = format!("unix:{},server=on,wait=off", console.display());
    let running = Idle::start(&scratch, &["--qmp", &qmp, "--serial", &serial]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !console.exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }

    let mut taken = Vec::new();
    for name in ["monitor", "console"] {
        let (qmp, serial) = (format!("unix:{name}"), format!("unix:{name},server=on,wait=off"));
        for (option, value) in [("--qmp", qmp), ("--serial", serial)] {
            let output = cloister(&["run", "--kernel", &kernel, option, &value], &scratch.0);
            taken.push((option, name, output));
        }
    }
    let mut client = UnixStream::connect(&monitor).unwrap();
    client.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}").unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();

    for (option, name, output) in taken {
        let why = "is the socket of a running process: end it, or name another path";
        assert_eq!(text(&output.stderr), format!("cloister: {option}: {name} {why}\n"));
        assert_eq!(output.status.code(), Some(1));
    }
    assert!(answers.contains("SHUTDOWN"), "{answers}");
    drop(running);
}

#[test]
fn the_log_level_is_one_of_six_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_cloister"))
        .arg("info")
        .env("CLOISTER_LOG", "nonsense")
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "cloister: CLOISTER_LOG: \"nonsense\" is not a level: \
         write off, error, warn, info, debug or trace\n"
    );
}

#[test]
fn a_kernel_that_is_told_of_no_console_is_warned_of() {
    let scratch = Scratch::new("no-console");
    let kernel = scratch.file("kernel", &powers_off());
    let warning = "the kernel's command line names no console, so nothing will be printed here: \
                   add console=ttyS0";
    for (args, option) in [
        (&["run", "--kernel", &kernel][..], None),
        (&["run", "--kernel", &kernel, "--append", "quiet"], Some("--append")),
        (&["run", "--kernel", &kernel, "--append", "console=hvc0"], None),
        (&["run", "--kernel", &kernel, "--append", "", "--serial", "null"], None),
        (&["qemu", "-kernel", &kernel], Some("-append")),
        (&["qemu", "-kernel", &kernel, "-serial", "none"], None),
    ] {
        let output = cloister(args, &scratch.0);

        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        match option {
            Some(option) => {
                assert!(said.contains(&format!(" {option}: {warning}")), "{args:?}: {said}");
            }
            None => assert!(!said.contains(warning), "{args:?}: {said}"),
        }
    }
}

#[test]
fn a_machine_in_the_background_without_input_runs_to_its_end() {
    let scratch = Scratch::new("background");
    scratch.file("kernel", &powers_off());
    let line =
        format!("{} run --kernel kernel </dev/null >log & wait $!", env!("CARGO_BIN_EXE_cloister"));

    let output = Command::new("sh").args(["-c", &line]).current_dir(&scratch.0).output().unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn run_puts_the_console_in_a_file_and_goes_on_in_the_background() {
    let scratch = Scratch::new("run-daemon");
    // MOV DX, 3F8H; MOV AL, 'K'; OUT DX, AL.
    let print = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'K', 0xee];
    let kernel = scratch.file("kernel", &bzimage_that_runs(&print));

    let output = cloister(
        &[
            "run",
            "--kernel",
            &kernel,
            "--serial",
            "file:log",
            "--pidfile",
            "pid",
            "--daemonize",
            "--name",
            "web,process=web-vm",
        ],
        &scratch.0,
    );

    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let pid = fs::read_to_string(scratch.0.join("pid")).unwrap();
    let pid = pid.trim();
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read(scratch.0.join("log")).unwrap() != b"K" && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let log = fs::read(scratch.0.join("log")).unwrap();
    let killed = Command::new("kill").args(["-s", "TERM", pid]).status().unwrap();
    while scratch.0.join("pid").exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(killed.success() && !scratch.0.join("pid").exists());
    assert_eq!((&*comm, &*log), ("web-vm\n", &b"K"[..]));
}

/// A kernel that powers the machine off: the sleep control register gets S5 with SLP_EN.
fn powers_off() -> Vec<u8> {
    bzimage_that_runs(&[0xba, 0x00, 0x06, 0x00, 0x00, 0xb0, 0x34, 0xee])
}
