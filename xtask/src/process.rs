//! Other programs: run quietly, and one clear line when they fail.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};

/// How long a program may be silent before something is printed for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints what begins now.
pub(crate) fn step(what: &str) {
    println!("==> {what}");
}

/// Prints how long something took.
pub(crate) fn done(start: Instant) {
    println!("    done in {:.1} s", start.elapsed().as_secs_f64());
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// A program that is missing, or its last lines of standard error when it failed.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = finish(command.stdin(Stdio::null()))?;
    if !output.status.success() {
        let name = name(command);
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{name} failed ({})\n{}", output.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program whose output the user sees as it comes.
///
/// # Errors
/// A program that is missing or failed.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|error| missing(command, error))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs a program whose output the user sees as it comes, and returns whether it
/// succeeded and the lines of both its outputs.
///
/// # Errors
/// A program that is missing.
pub(crate) fn show_and_keep(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(|error| missing(command, error))?;
    let stdout = child.stdout.take().map(|pipe| thread::spawn(move || show_lines(pipe)));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(move || show_lines(pipe)));
    let mut lines = Vec::new();
    for handle in [stdout, stderr].into_iter().flatten() {
        lines.extend(handle.join().unwrap_or_default());
    }
    Ok((child.wait()?.success(), lines))
}

fn show_lines(pipe: impl std::io::Read) -> Vec<String> {
    let lines = BufReader::new(pipe).lines().map_while(Result::ok);
    lines.inspect(|line| println!("{line}")).collect()
}

/// Runs a program and returns all it gave, whatever its exit code. One that takes
/// long is seen to be at work.
///
/// # Errors
/// A program that is missing.
pub(crate) fn finish(command: &mut Command) -> Result<Output> {
    let start = Instant::now();
    let (sender, receiver) = channel();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            // The receiver waits below for as long as this thread runs.
            let _ = sender.send(command.output());
        });
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Err(RecvTimeoutError::Timeout) => {
                    println!("    still at it after {} s", start.elapsed().as_secs());
                }
                other => break other,
            }
        }
    });
    outcome.context("a program's output was lost")?.map_err(|error| missing(command, error))
}

/// True if the program can be started and knows `--version`.
pub(crate) fn exists(program: &[&str]) -> bool {
    let [name, arguments @ ..] = program else { return false };
    Command::new(name)
        .args(arguments)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Cargo as it was started for xtask itself.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::repository::root());
    command
}

fn missing(command: &Command, error: std::io::Error) -> anyhow::Error {
    let name = name(command);
    if error.kind() == ErrorKind::NotFound {
        anyhow::anyhow!("{name} is not installed; on Debian: apt-get install {}", package(&name))
    } else {
        anyhow::Error::new(error).context(format!("cannot run {name}"))
    }
}

/// The Debian package of a program that xtask starts.
fn package(program: &str) -> &str {
    match program {
        "apt-get" | "apt-cache" => "apt",
        "dpkg-deb" => "dpkg",
        "strip" => "binutils",
        "mke2fs" | "resize2fs" => "e2fsprogs",
        "gcc" => "gcc libc6-dev",
        other => other,
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Waits for somebody to make a socket.
///
/// # Errors
/// There is none after a minute.
pub(crate) fn await_socket(socket: &str) -> Result<()> {
    let start = Instant::now();
    while !fs::exists(socket)? {
        ensure!(start.elapsed().as_secs() < 60, "there is no socket {socket}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Reads a file with its name in the error.
pub(crate) fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
