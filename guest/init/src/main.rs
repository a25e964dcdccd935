//! PID 1 of the guest images that xtask builds.
//!
//! The kernel command line says what happens:
//!
//! - `cloister.run=TASK[:ARGUMENT]...[,TASK...]`: run these in order. A task is one of
//!   [`tasks::TASKS`], `repeat` or a program in `/bin`. `repeat:TIMES:PROGRAM[:ARGUMENT]...` tells how
//!   often the program ended well.
//! - `cloister.end=poweroff|reboot|panic|exit`: what comes last (default `poweroff`).
//!
//! Every task prints `init: begin NAME` and `init: end NAME CODE`, which xtask parses.

mod button;
mod net;
mod system;
mod tasks;
mod twin;
mod vsock;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

fn main() {
    system::mount_all();
    // From here on only errors reach the console, so that the kernel's remarks do
    // not come in the middle of a line of ours. The log keeps everything.
    let _ = fs::write("/proc/sys/kernel/printk", "4");
    println!("init: up after {} s", uptime());
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    for task in option(&command_line, "cloister.run").unwrap_or_default().split(',') {
        if !task.is_empty() {
            run(task);
        }
    }
    let end = option(&command_line, "cloister.end").unwrap_or("poweroff");
    println!("init: {end}");
    match end {
        "reboot" => system::reboot(),
        "panic" => {
            // Both are needed: SysRq may be limited by the kernel's default.
            let _ = fs::write("/proc/sys/kernel/sysrq", "1");
            let _ = fs::write("/proc/sysrq-trigger", "c");
        }
        // The end of PID 1 makes the kernel panic by itself.
        "exit" => return,
        _ => system::power_off(),
    }
    // Reached only if the kernel refused.
    println!("init: {end} did not happen");
}

/// The value of `name=value` on the command line.
fn option<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

fn run(task: &str) {
    let mut words = task.split(':');
    let name = words.next().unwrap_or_default();
    let arguments: Vec<&str> = words.collect();
    println!("init: begin {name}");
    let code = match tasks::TASKS.iter().find(|(known, _)| *known == name) {
        Some((_, body)) => match body(&arguments) {
            Ok(()) => 0,
            Err(error) => {
                println!("init: {name}: {error}");
                1
            }
        },
        None if name == "repeat" => repeat(&arguments),
        None => program(name, &arguments),
    };
    println!("init: end {name} {code}");
}

fn repeat(arguments: &[&str]) -> i32 {
    let [times, name, arguments @ ..] = arguments else { return 1 };
    let Ok(times) = times.parse::<u32>() else { return 1 };
    let mut good = 0;
    for _ in 0..times {
        good += u32::from(program(name, arguments) == 0);
    }
    println!("repeat: {name} ended well {good} times of {times}");
    0
}

/// Runs `/bin/NAME`; in `/NAME` if there is such a folder, since some programs
/// open their files relative to the working directory.
fn program(name: &str, arguments: &[&str]) -> i32 {
    let mut command = Command::new(format!("/bin/{name}"));
    command.args(arguments).env("PATH", "/bin").env("HOME", "/");
    let folder = format!("/{name}");
    if Path::new(&folder).is_dir() {
        command.current_dir(folder);
    }
    match command.status() {
        // As a shell has it for a program that a signal ended.
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => {
            println!("init: cannot run /bin/{name}: {error}");
            127
        }
    }
}
