//! `cloister exec`: every exit code, much input, and many machines at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::exec::{check, echo, exec, finish, run};

/// Machines side by side that do not wait for each other's processors much.
const BESIDE: usize = 4;
/// Signals that end a program, by number (signal(7)).
const DEADLY: [i32; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const INPUT: usize = 100 << 20;
const MACHINES: usize = 50;
/// Of RAM for each of them.
const MEMORY: [&str; 2] = ["--memory", "256M"];
/// What belongs to a machine ends so long after it, at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command's code is the exit code, and a signal's number beyond 128.
pub(super) fn every_exit_code(setup: &Setup) -> Result<()> {
    let next = AtomicI32::new(0);
    thread::scope(|scope| {
        let workers = [(); BESIDE].map(|()| scope.spawn(|| exit_codes(setup, &next)));
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn exit_codes(setup: &Setup, next: &AtomicI32) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let (script, code) = match number {
            0..=255 => (format!("exit {number}"), number),
            _ => match DEADLY.get(number as usize - 256) {
                // No core of it: its pattern may name a program of the host's.
                Some(signal) => (format!("ulimit -c 0; kill -{signal} $$"), 128 + signal),
                None => return Ok(()),
            },
        };
        let output = run(setup, "exec-every-code", &[], &["sh", "-c", &script])?;
        check(&output, code, "", "").with_context(|| script)?;
    }
}

/// 100 MiB come back byte for byte.
pub(super) fn much_input(setup: &Setup) -> Result<()> {
    echo(setup, "exec-much-input", INPUT)
}

/// Fifty machines at once have each its own outcome; fifty that are killed at any moment leave no
/// process and no file behind.
pub(super) fn many_machines(setup: &Setup) -> Result<()> {
    // Not the test's folder: sockets are made here, and their paths must be short.
    let temporary = std::env::temp_dir().join(format!("cloister-many-{}", std::process::id()));
    fs::create_dir(&temporary)?;
    // A copy, by which its processes are told from others'.
    let program = setup.path("exec-many-program");
    fs::copy(setup.program()?, &program)?;
    let program = program.canonicalize()?;
    let start = |number: usize| -> Result<Child> {
        let script = format!("echo {number}; exit {number}");
        let exec = exec(setup, "exec-many", &MEMORY, &["sh", "-c", &script])?;
        let mut copy = Command::new(&program);
        copy.args(exec.get_args()).current_dir(setup.path("exec-many")).env("TMPDIR", &temporary);
        Ok(copy.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    };
    let machines: Vec<Child> = (0..MACHINES).map(start).collect::<Result<_>>()?;
    for (number, machine) in machines.into_iter().enumerate() {
        check(&finish(machine)?, number as i32, &format!("{number}\n"), "")?;
    }

    let begun = Instant::now();
    let mut machines: Vec<Child> = (0..MACHINES).map(start).collect::<Result<_>>()?;
    for (number, machine) in machines.iter_mut().enumerate() {
        // From the first instruction to the middle of the boot and beyond.
        let moment = Duration::from_millis(number as u64 * 97 % 4000);
        thread::sleep(moment.saturating_sub(begun.elapsed()));
        if number == 0 {
            ensure!(!processes_of(&program)?.is_empty(), "none is seen");
        }
        machine.kill()?;
    }
    let killed: BTreeSet<u32> = machines.iter().map(Child::id).collect();
    machines.iter_mut().try_for_each(|machine| machine.wait().map(drop))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = processes_of(&program)?;
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "of {killed:?} are left: {left:?}");
        thread::sleep(Duration::from_millis(100));
    }
    check(&finish(start(7)?)?, 7, "7\n", "")?;
    let files: Vec<_> = fs::read_dir(&temporary)?.collect::<std::io::Result<_>>()?;
    ensure!(files.is_empty(), "{files:?} are left");
    Ok(fs::remove_dir(&temporary)?)
}

/// Processes that run `program`.
fn processes_of(program: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?.path();
        // Others' processes, and those that end meanwhile, are not to be read.
        if fs::read_link(entry.join("exe")).is_ok_and(|exe| exe == program) {
            found.push(entry.display().to_string());
        }
    }
    Ok(found)
}
