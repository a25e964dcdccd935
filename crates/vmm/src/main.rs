//! The `cloister` command.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use cloister_vmm::chardev::Backend;
use cloister_vmm::cli::{self, Command, Refusal, RunArgs};
use cloister_vmm::daemon::{self, Daemon, Side};
use cloister_vmm::invocation::Invocation;
use cloister_vmm::machine::{Control, Machine, Outcome};
use cloister_vmm::own_file::start_keeper;
use cloister_vmm::pidfile::PidFile;
use cloister_vmm::qemu::{self, Request, in_options_of_qemu};
use cloister_vmm::qmp::{Context, Listen, Server, Socket};
use cloister_vmm::sandbox::{Inherited, Sandbox, ThreadKind, forget_environment};
use cloister_vmm::standard::{complain, print};
use cloister_vmm::terminal::{self, SIGNALLED};
use cloister_vmm::{epc_view, info, log};

/// The guest powered off, or the user quit.
const SUCCESS: u8 = 0;
/// The command line, a file or the host is at fault.
const FAILURE: u8 = 1;
/// The guest reset or crashed, and was not to boot again.
const GUEST_RESET: u8 = 2;

fn main() -> ExitCode {
    if let Err(error) = terminal::take_stop_signals() {
        complain(&format!("the host does not let signals through: {error}"));
        return ExitCode::from(FAILURE);
    }
    if let Err(error) = log::start() {
        complain(&error.to_string());
        return ExitCode::from(FAILURE);
    }
    match cli::parse(std::env::args_os()) {
        Ok(Command::Run(args)) => end(run(*args), |line| line),
        Ok(Command::Qemu { words }) => end(qemu(words), |line| in_options_of_qemu(&line)),
        Ok(Command::Epc(args)) => {
            end(epc_view::run(&args).map(|()| SUCCESS).map_err(Into::into), |line| line)
        }
        Ok(Command::Info) => end(tell(&info::HostInfo::gather().to_string()), |line| line),
        Err(Refusal::Asked(text)) => end(tell(&text), |line| line),
        Err(Refusal::Wrong(line)) => {
            complain(&line);
            ExitCode::from(FAILURE)
        }
    }
}

/// The exit code of a command; what went wrong is said in one line, in the command's own `words`.
fn end(ended: anyhow::Result<u8>, words: impl Fn(String) -> String) -> ExitCode {
    ExitCode::from(ended.unwrap_or_else(|error| {
        complain(&words(format!("{error:#}")));
        FAILURE
    }))
}

/// Prints what was asked for.
fn tell(text: &str) -> anyhow::Result<u8> {
    let printed = print(text);
    printed
        .context("standard output: it cannot be written: give it a file with room, or a pipe")?;
    Ok(SUCCESS)
}

fn run(args: RunArgs) -> anyhow::Result<u8> {
    start(args.into_invocation()?)
}

fn qemu(words: Vec<OsString>) -> anyhow::Result<u8> {
    match qemu::parse(words)? {
        Request::Run(invocation) => start(*invocation),
        Request::Help => tell(&qemu::help()),
        Request::HelpOn(text) => tell(&text),
        Request::Version => tell(&format!("cloister {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

/// Makes a process for the machine that has nothing of its starter's but what the machine is to have.
fn start(invocation: Invocation) -> anyhow::Result<u8> {
    let inherited = if invocation.sandbox {
        forget_environment();
        let words: Vec<OsString> = std::env::args_os().collect();
        let closed = Inherited::close(words.iter().map(OsString::as_os_str));
        closed.context("--sandbox: the host does not close open files: write --sandbox off")?
    } else {
        Inherited::default()
    };
    invocation.check_files()?;
    // Before anything that belongs to one process: threads, locks, its number.
    let daemon = if invocation.daemonize {
        match daemon::detach().context("--daemonize: the host gives no process")? {
            Side::Ready => return Ok(SUCCESS),
            // The daemon says why.
            Side::Failed => return Ok(FAILURE),
            Side::Ended => anyhow::bail!(
                "--daemonize: the process in the background was ended before the machine was ready: \
                 start it again"
            ),
            Side::Daemon(daemon) => Some(daemon),
        }
    } else {
        None
    };
    if invocation.sandbox && invocation.has_own_files() {
        start_keeper().context("--sandbox: the host gives no process: write --sandbox off")?;
    }
    if let Some(name) = &invocation.process_name {
        daemon::name_process(name).context("--name: the host refuses the process's name")?;
    }
    let silent_kernel = invocation.silent_kernel();
    let machine = Machine::new(invocation.machine)?;
    // From here on there are files that go with the process.
    terminal::hold_stop_signals().context("the host does not let signals wait")?;
    let files = Files {
        monitors: bind(&invocation.monitors)?,
        pidfile: invocation
            .pidfile
            .map(|path| PidFile::write(&path))
            .transpose()
            .context("--pidfile")?,
        // Last, since it may cut a file to nothing.
        console: invocation.serial.open().context("--serial")?,
    };
    inherited.close_named();
    if let Some(line) = silent_kernel {
        tracing::warn!("{line}");
    }
    run_machine(Arc::new(machine), files, invocation.sandbox, daemon)
}

/// What the process opened beside what the guest sees.
struct Files {
    monitors: Vec<Socket>,
    console: Backend,
    pidfile: Option<PidFile>,
}

/// Makes sleeps end when they are due, here and in the threads that come. Linux lets a sleeper
/// oversleep by 50 us: a guest's timers, and the pauses of its
/// processors, are of that size.
fn sleep_exactly() {
    // Where the host refuses, the machine is slower and just as right.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Runs a machine to its end. Every file is open.
fn run_machine(
    machine: Arc<Machine>,
    files: Files,
    sandbox: bool,
    daemon: Option<Daemon>,
) -> anyhow::Result<u8> {
    let Files { monitors, console, pidfile: _pidfile } = files;
    if let Some(daemon) = &daemon {
        daemon.leave_directory().context("--daemonize: cannot leave the directory")?;
    }
    sleep_exactly();
    // Every thread is started after this, and inherits it.
    let sandbox = if sandbox {
        Sandbox::new(machine.largest_disk().max(console.file_size()))?
    } else {
        Sandbox::off()
    };
    sandbox.enter(ThreadKind::Main)?;
    let control = Control::new(console.output()?);
    terminal::on_stop_signal(sandbox.clone(), {
        let control = control.clone();
        move |signal| control.quit_for(signal)
    })?;
    let given_up =
        || control.quit_cause().is_some() || daemon.as_ref().is_some_and(Daemon::is_abandoned);
    // Dropped last of all, when the terminal is as it was.
    let monitors = start_monitors(monitors, &machine, &control, &sandbox, given_up)?;
    let raw = console.start(&control, &sandbox, given_up)?;
    if let Some(daemon) = daemon {
        if control.quit_cause().is_some() {
            anyhow::bail!(
                "--daemonize: the machine was told to end before it was ready: start it again"
            );
        }
        daemon.ready().context("--daemonize: cannot leave the terminal")?;
    }
    let outcome = machine.run_supervised(&control, &sandbox);
    drop(raw);
    monitors.iter().for_each(Server::bid_farewell);
    drop(monitors);
    // The end of the process frees it faster, and whatever thread still holds it.
    std::mem::forget(machine);
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
    given_up: impl Fn() -> bool,
) -> anyhow::Result<Vec<Server>> {
    let start = |socket| Server::start(socket, Context::new(machine, control), sandbox.clone());
    let servers: Vec<Server> = sockets
        .into_iter()
        .map(start)
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow::anyhow!("--qmp: {error}"))?;
    for server in &servers {
        server.wait_for_client(&given_up);
    }
    Ok(servers)
}
