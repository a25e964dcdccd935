//! The `cloister` command.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Context as _;
use cloister_vmm::cli::{self, Command, Refusal, RunArgs};
use cloister_vmm::info;
use cloister_vmm::machine::{Control, Machine, Outcome};
use cloister_vmm::qmp::{Context, Listen, Server, Socket};
use cloister_vmm::sandbox::{Sandbox, ThreadKind};
use cloister_vmm::terminal::{self, RawMode};
use tracing::level_filters::LevelFilter;

/// The guest powered off, or the user quit.
const SUCCESS: u8 = 0;
/// The command line, a file or the host is at fault.
const FAILURE: u8 = 1;
/// The guest reset or crashed, and was not to boot again.
const GUEST_RESET: u8 = 2;
/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;

fn main() -> ExitCode {
    start_log();
    match cli::parse(std::env::args_os()) {
        Ok(Command::Run(args)) => match run(*args) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("cloister: {error:#}");
                ExitCode::from(FAILURE)
            }
        },
        Ok(Command::Info) => {
            print!("{}", info::HostInfo::gather());
            ExitCode::from(SUCCESS)
        }
        Err(Refusal::Asked(text)) => {
            print!("{text}");
            ExitCode::from(SUCCESS)
        }
        Err(Refusal::Wrong(line)) => {
            eprintln!("cloister: {line}");
            ExitCode::from(FAILURE)
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<u8> {
    let sandbox = args.sandbox()?;
    let monitors = args.monitors()?;
    let machine = Machine::new(args.into_config()?)?;
    let sockets = bind(&monitors)?;
    // Every file is open; the threads come behind it.
    let sandbox = if sandbox { Sandbox::new()? } else { Sandbox::off() };
    sandbox.enter(ThreadKind::Main)?;
    let control = Control::new(io::stdout());
    terminal::on_stop_signal(sandbox.clone(), {
        let control = control.clone();
        move |signal| {
            // A second signal does not wait for the guest's processors.
            if control.quit_for(signal) {
                terminal::restore();
                std::process::exit(SIGNALLED + signal);
            }
        }
    })?;
    // Dropped last of all, when the terminal is as it was.
    let _monitors = start_monitors(sockets, &machine, &control, &sandbox)?;
    terminal::read_input(sandbox.clone(), control.clone())?;
    let raw = RawMode::enter().context(
        "standard input: the terminal refuses raw mode: give the console a pipe or </dev/null",
    )?;
    let outcome = machine.run(&control, &sandbox);
    drop(raw);
    Ok(match outcome? {
        Outcome::PowerOff => SUCCESS,
        Outcome::Quit => control.signal().map_or(SUCCESS, |signal| (SIGNALLED + signal) as u8),
        Outcome::Reset | Outcome::TripleFault => GUEST_RESET,
    })
}

/// Makes the sockets of the monitors.
fn bind(monitors: &[Listen]) -> anyhow::Result<Vec<Socket>> {
    let sockets: Result<_, _> = monitors.iter().map(Socket::bind).collect();
    sockets.map_err(|error| anyhow::anyhow!("--qmp: {error}"))
}

/// Starts the monitors, and waits for the clients of those that are to wait.
fn start_monitors(
    sockets: Vec<Socket>,
    machine: &Machine,
    control: &Control,
    sandbox: &Sandbox,
) -> anyhow::Result<Vec<Server>> {
    let start = |socket| Server::start(socket, Context::new(machine, control), sandbox.clone());
    let servers: Vec<Server> = sockets
        .into_iter()
        .map(start)
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow::anyhow!("--qmp: {error}"))?;
    for server in &servers {
        server.wait_for_client(|| control.quit_cause().is_some());
    }
    Ok(servers)
}

/// Logs to standard error what CLOISTER_LOG asks for: off, error, warn (the default), info, debug
/// or trace.
fn start_log() {
    let level = std::env::var("CLOISTER_LOG")
        .ok()
        .and_then(|level| level.parse::<LevelFilter>().ok())
        .unwrap_or(LevelFilter::WARN);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .init();
}
