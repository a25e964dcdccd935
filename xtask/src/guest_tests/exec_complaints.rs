//! What users of programs like `cloister exec` have complained of (docs/design/exec.md), and no other test has.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::exec::{check, exec, finish, run};
use crate::process;

/// A shell's line with `cloister exec` at `EXEC`, on a terminal of its own.
fn on_terminal(setup: &Setup, name: &str, line: &str) -> Result<Command> {
    let folder = setup.path(name);
    fs::create_dir_all(&folder)?;
    let exec =
        format!("'{}' exec --quiet --kernel '{}'", setup.program()?.display(), setup.kernel());
    // By util-linux, which is on every Debian.
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.replace("EXEC", &exec), "/dev/null"]);
    script.current_dir(folder).stdin(Stdio::null());
    Ok(script)
}

/// A command on a terminal has one of its size, and the user's is as before when the time is up.
pub(super) fn terminal(setup: &Setup) -> Result<()> {
    let line = "stty rows 33 cols 77; EXEC --timeout 5 -- sh -c 'tty; stty size; echo begun >&2; sleep 100'
                echo code $?; stty -a";
    let printed = process::capture(&mut on_terminal(setup, "exec-terminal", line)?)?;
    // Some versions of script write what they were given for input first.
    for expected in ["/dev/pts/0\r\n", "\n33 77\r\n", "\nbegun\r\n", "\ncode 124\r\n"] {
        ensure!(printed.contains(expected), "{expected:?} is not in {printed:?}");
    }
    let settings = printed.split_whitespace().collect::<Vec<_>>();
    for setting in ["icanon", "echo", "isig", "opost"] {
        ensure!(settings.contains(&setting), "{setting} is off: {printed}");
    }
    Ok(())
}

/// Ctrl-C ends a machine whose command does not run yet, also where the terminal makes no signal of it.
pub(super) fn early_key(setup: &Setup) -> Result<()> {
    let mut script = on_terminal(setup, "exec-key", "EXEC -- sleep 60")?;
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut keys = child.stdin.take().context("no input")?;
    // In raw mode from about now on, and before any command runs.
    thread::sleep(Duration::from_millis(300));
    keys.write_all(b"\x03")?;
    interrupted(child)
}

/// A command that heeds nothing is ended by a key that it cannot keep from the user.
pub(super) fn late_key(setup: &Setup) -> Result<()> {
    let deaf = "EXEC -- sh -c \"trap '' INT QUIT TERM HUP; stty -isig; echo ready; sleep 60\"";
    let mut script = on_terminal(setup, "exec-late-key", deaf)?;
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut keys = child.stdin.take().context("no input")?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?).lines();
    let ready = output.by_ref().map_while(Result::ok).any(|line| line.starts_with("ready"));
    ensure!(ready, "the command did not run");
    keys.write_all(b"\x03\x1c\x03\x03")?;
    thread::sleep(Duration::from_millis(300));
    ensure!(child.try_wait()?.is_none(), "the command heeds signals");
    keys.write_all(b"\x1d\x1d\x1d")?;
    interrupted(child)
}

/// The machine ends soon, as by SIGINT.
fn interrupted(mut child: Child) -> Result<()> {
    let start = Instant::now();
    let status = child.wait()?;
    ensure!(status.code() == Some(128 + 2), "{status}");
    ensure!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
    Ok(())
}

/// What cannot be written is told of, and is no success.
pub(super) fn full(setup: &Setup) -> Result<()> {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    let output = finish(exec(setup, "exec-full", &[], &["echo", "x"])?.stdout(full()?).spawn()?)?;
    let line = "cloister: standard output of the command cannot be written: No space left on device (os error 28): \
                make room there, or send it elsewhere\n";
    check(&output, 125, "", line)
}

/// Files that the host replaces are seen, and those that the command has removed stay open.
pub(super) fn files(setup: &Setup) -> Result<()> {
    const TEST: &str = "exec-files";
    let folder = setup.path(TEST);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("file"), "old\n")?;
    let script = "exec 3>gone 4<gone; rm gone; echo kept >&3; cat <&4; cat file
                  while ! test -e go; do sleep 0.1; done; sleep 1; cat file; cat deep/file";
    let mut child = exec(setup, TEST, &[], &["sh", "-c", script])?.spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut before = String::new();
    for _ in 0..2 {
        output.read_line(&mut before)?;
    }
    fs::write(folder.join("file.new"), "new\n")?;
    fs::rename(folder.join("file.new"), folder.join("file"))?;
    fs::create_dir(folder.join("deep"))?;
    fs::write(folder.join("deep/file"), "deep\n")?;
    fs::write(folder.join("go"), "")?;
    let mut after = String::new();
    output.read_to_string(&mut after)?;
    let status = child.wait()?;
    ensure!((&*before, &*after) == ("kept\nold\n", "new\ndeep\n"), "{before:?} {after:?} {status}");
    Ok(())
}

/// What the machine says of itself in /etc it says to itself, also where the host's /etc is a folder that it may change.
pub(super) fn etc(setup: &Setup) -> Result<()> {
    const FILES: [(&str, &str); 4] = [
        ("hosts", "127.0.0.1 localhost\n"),
        ("hostname", "host\n"),
        ("resolv.conf", "nameserver 192.0.2.1\n"),
        ("passwd", "root:x:0:0::/root:/bin/sh\n"),
    ];
    let etc = setup.path("exec-etc");
    fs::create_dir_all(&etc)?;
    for (name, contents) in FILES {
        fs::write(etc.join(name), contents)?;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount"]);
    let allowed = process::finish(Command::new("unshare").args(unshare.get_args()).arg("true"))?;
    if !allowed.status.success() {
        println!("left out: the host lets nobody make namespaces");
        return Ok(());
    }
    let script = "mount --bind \"$1\" /etc; shift; cd /etc; exec \"$@\"";
    unshare.args(["sh", "-ec", script, "sh"]).arg(etc.canonicalize()?);
    unshare.arg(setup.program()?.canonicalize()?).args(["exec", "--kernel"]);
    let kernel = fs::canonicalize(setup.kernel())?;
    unshare.arg(kernel).args(["--", "sh", "-c", "cat hostname; echo x > new"]);
    check(&process::finish(unshare.stdin(Stdio::null()))?, 0, "host\n", "")?;
    for (name, contents) in FILES.into_iter().chain([("new", "x\n")]) {
        ensure!(fs::read_to_string(etc.join(name))? == contents, "{name} was changed");
    }
    Ok(())
}

/// Each part of the machine that commands expect to write, to load code from, or to be named by.
pub(super) fn places(setup: &Setup) -> Result<()> {
    let script = "touch /tmp/x /run/x /dev/shm/x && test -r /etc/resolv.conf -o ! -h /etc/resolv.conf && echo written
                  grep -q ' /dev devtmpfs .*noexec' /proc/mounts || echo executable
                  getent hosts $(uname -n) | tr -s ' '; cat /etc/hostname /proc/sys/net/ipv4/ping_group_range";
    check(
        &run(setup, "exec-places", &["--user", "root"], &["sh", "-c", script])?,
        0,
        "written\nexecutable\n127.0.1.1 cloister\ncloister\n0\t2147483647\n",
        "",
    )
}
