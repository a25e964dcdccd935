//! The `cloister` command.

#![expect(unsafe_code, reason = "the process has one thread, which main alone knows")]

use std::ffi::OsString;
use std::io;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;

use cloister_vmm::attestation::{self, AttestationError};
use cloister_vmm::chardev::Backend;
use cloister_vmm::cli::{self, Command, ExecArgsError, ExecWording, Refusal, RunArgs, RunWording};
use cloister_vmm::complaint::{Complaint, Setting, Wording};
use cloister_vmm::daemon::{self, Daemon, Side};
use cloister_vmm::epc_command::{self, EpcArgs};
use cloister_vmm::exec::{self, ExecConfig, Fetched};
use cloister_vmm::gdb;
use cloister_vmm::invocation::Invocation;
use cloister_vmm::machine::{Control, Machine, Outcome};
use cloister_vmm::net::{Network, Passt};
use cloister_vmm::oci;
use cloister_vmm::own_file::start_keeper;
use cloister_vmm::pidfile::PidFile;
use cloister_vmm::qemu::{self, QemuWording, Request};
use cloister_vmm::qmp::{Context, Listen, Server, Socket};
use cloister_vmm::register::{Entry, Register, Registered};
use cloister_vmm::sandbox::{Inherited, Sandbox, ThreadKind, forget_environment, turn_off};
use cloister_vmm::shares::{FileServer, Folder, ShareConfig};
use cloister_vmm::standard::{complain, print};
use cloister_vmm::terminal::{self, SIGNALLED};
use cloister_vmm::vsock::{Dialer, HostSockets};
use cloister_vmm::{info, log, ps, seed};

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
    let ended = match cli::parse(oci::words(std::env::args_os())) {
        Ok(Command::Run(args)) => run(*args),
        Ok(Command::Exec(args)) => return exec(args.into_config()),
        Ok(Command::Shell(args)) => return exec(args.into_config()),
        Ok(Command::Qemu { words }) => qemu(words),
        Ok(Command::Epc(args)) => epc(&args),
        Ok(Command::Pki(args)) => attested(attestation::pki(&args)),
        Ok(Command::Quote(args)) => attested(attestation::quote(&args).map(|()| String::new())),
        Ok(Command::Verify(args)) => attested(attestation::verify(&args)),
        Ok(Command::Pccs(args)) => attested(attestation::pccs(&args)),
        Ok(Command::Aesm(args)) => attested(attestation::aesm(&args)),
        Ok(Command::Seed(args)) => {
            seed::seed(&args).map_err(|error| error.to_string()).and_then(|said| tell(&said))
        }
        // SAFETY: main has started no thread.
        Ok(Command::Oci(args)) => return ExitCode::from(unsafe { oci::run(args) }),
        Ok(Command::Ps(args)) => {
            ps::ps(&args).map_err(|error| error.to_string()).and_then(|text| tell(&text))
        }
        Ok(Command::Info) => tell(&info::HostInfo::gather().to_string()),
        Err(Refusal::Asked(text)) => tell(&text),
        Err(Refusal::Wrong(line)) => Err(line),
    };
    ExitCode::from(ended.unwrap_or_else(|line| {
        complain(&line);
        // A line of options that cannot be read is a failure as others are.
        let runs_a_command =
            std::env::args_os().nth(1).is_some_and(|word| word == "exec" || word == "shell");
        if runs_a_command { exec::FAILURE } else { FAILURE }
    }))
}

/// How a command ends: with an exit code, or with what went wrong, in one line in the command's words.
type Ended = Result<u8, String>;

/// Prints what was asked for.
fn tell(text: &str) -> Ended {
    print(text).map_err(|error| {
        format!(
            "standard output: it cannot be written: give it a file with room, or a pipe: {error}"
        )
    })?;
    Ok(SUCCESS)
}

/// Prints what a command of attestation says.
fn attested(said: Result<String, AttestationError>) -> Ended {
    tell(&said.map_err(|error| error.to_string())?)
}

fn epc(args: &EpcArgs) -> Ended {
    epc_command::run(args).map_err(|error| RunWording.line(&Complaint::of_nothing_set(&error)))?;
    Ok(SUCCESS)
}

fn run(args: RunArgs) -> Ended {
    let invocation = args.into_invocation().map_err(|error| error.to_string())?;
    start(invocation, "run", &RunWording).map_err(|complaint| RunWording.line(&complaint))
}

/// Runs a command in a machine. Failures that are not the command's have a code of their own.
fn exec(config: Result<ExecConfig, ExecArgsError>) -> ExitCode {
    let ended = config.map_err(|error| error.to_string()).and_then(|config| {
        let kernel = match config.kernel() {
            Ok(Fetched::Kernel(kernel)) => kernel,
            Ok(Fetched::Ended(code)) => return Ok(code),
            Err(error) => return Err(ExecWording.line(&error.complaint())),
        };
        let passt = Passt::find(&config.networks);
        let register = Register::of_user();
        if config.sandbox {
            // SAFETY: main has started no thread; what does, the machine, comes later.
            unsafe { forget_environment() };
            let words: Vec<OsString> = std::env::args_os().collect();
            let closed = Inherited::close(words.iter().map(OsString::as_os_str));
            let closed = closed.map_err(unconfined("the host does not close open files"));
            closed.map_err(|complaint| ExecWording.line(&complaint))?;
        }
        sleep_exactly();
        // SAFETY: as above.
        let ended = unsafe { exec::run(config, kernel, &passt, &register, &ExecWording, None) };
        ended.map_err(|complaint| ExecWording.line(&complaint))
    });
    ExitCode::from(ended.unwrap_or_else(|line| {
        complain(&line);
        exec::FAILURE
    }))
}

fn qemu(words: Vec<OsString>) -> Ended {
    match qemu::parse(words).map_err(|error| error.to_string())? {
        Request::Run(invocation) => {
            let started = start(*invocation, "qemu", &QemuWording);
            started.map_err(|complaint| QemuWording.line(&complaint))
        }
        Request::Help => tell(&qemu::help()),
        Request::HelpOn(text) => tell(&text),
        Request::Version => tell(&format!("cloister {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

/// What the host refuses for a setting, in words that end in what it said.
fn refused(setting: impl Into<Option<Setting>>, what: &str) -> impl FnOnce(io::Error) -> Complaint {
    let setting = setting.into();
    move |error| Complaint { setting, why: format!("{what}: {error}").into(), fix: None }
}

/// What the host refuses of a sandbox.
fn unconfined(what: &str) -> impl Fn(io::Error) -> Complaint {
    move |error| Complaint::new(Setting::Sandbox, format!("{what}: {error}"), turn_off())
}

/// What the host refuses that nothing was set for.
fn refused_by_host(error: io::Error) -> Complaint {
    Complaint::of_nothing_set(&error)
}

/// Makes a process for the machine that has nothing of its starter's but what the machine is to have. `command`
/// is that of `cloister`.
fn start(
    invocation: Invocation,
    command: &str,
    wording: &'static dyn Wording,
) -> Result<u8, Complaint> {
    let passt = Passt::find(&invocation.networks);
    let register = Register::of_user();
    let inherited = if invocation.sandbox {
        // SAFETY: main has started no thread; what does, the machine and the monitor, come later.
        unsafe { forget_environment() };
        let words: Vec<OsString> = std::env::args_os().collect();
        let closed = Inherited::close(words.iter().map(OsString::as_os_str));
        closed.map_err(unconfined("the host does not close open files"))?
    } else {
        Inherited::default()
    };
    invocation.check_files().map_err(|error| error.complaint())?;
    // Before anything that belongs to one process: threads, locks, its number.
    let daemon = if invocation.daemonize {
        let refused = refused(Setting::Daemon, "the host gives no process");
        // SAFETY: main has started no thread; what does, the machine and the monitor, come later.
        match unsafe { daemon::detach() }.map_err(refused)? {
            Side::Ready => return Ok(SUCCESS),
            // The daemon says why.
            Side::Failed => return Ok(FAILURE),
            Side::Ended => {
                let why = "the process in the background was ended before the machine was ready";
                return Err(Complaint::new(Setting::Daemon, why, "start it again"));
            }
            Side::Daemon(daemon) => Some(daemon),
        }
    } else {
        None
    };
    if invocation.sandbox && invocation.has_own_files() {
        // SAFETY: main has started no thread; what does, the machine and the monitor, come later.
        unsafe { start_keeper() }.map_err(unconfined("the host gives no process"))?;
    }
    if let Some(name) = &invocation.process_name {
        let refused = refused(Setting::Name, "the host refuses the process's name");
        daemon::name_process(name).map_err(refused)?;
    }
    let dialer = match &invocation.vsock {
        // SAFETY: main has started no thread; what does, the machine and the monitor, come later.
        Some(vsock) => Some(unsafe { Dialer::start(&vsock.path, invocation.sandbox) }),
        None => None,
    };
    let no_process = refused(Setting::Vsock, "the host gives no process");
    let dialer = dialer.transpose().map_err(no_process)?;
    let servers = invocation.shares.iter().map(|share| start_server(share, invocation.sandbox));
    let servers: Vec<FileServer> = servers.collect::<Result<_, _>>()?;
    let silent_kernel = invocation.silent_kernel();
    let entry = invocation.entry(command);
    let mut machine = Machine::new(invocation.machine).map_err(|error| error.complaint())?;
    let entry = Entry { accel: machine.accelerator().name().to_owned(), ..entry };
    for (share, server) in invocation.shares.iter().zip(servers) {
        let attached = machine.attach_file_system(share.tag.clone(), server.socket());
        attached.map_err(|error| error.complaint())?;
    }
    // From here on there are files that go with the process.
    let refused = refused(None, "the host does not let signals wait");
    terminal::hold_stop_signals().map_err(refused)?;
    let mut monitors = bind(&invocation.monitors)?;
    let gdb = invocation.gdb.as_ref().map(gdb::Socket::bind).transpose();
    let gdb = gdb.map_err(|error| Complaint::about(Setting::Gdb, &error))?;
    if let (Some(vsock), Some(dialer)) = (&invocation.vsock, dialer) {
        let host = HostSockets::bind(vsock, dialer);
        let host = host.map_err(|error| Complaint::about(Setting::Vsock, &error))?;
        let attached = machine.attach_vsock(vsock.cid, Arc::new(host));
        attached.map_err(|error| error.complaint())?;
    }
    let networks = Network::open_all(&invocation.networks, &passt)?;
    for network in &networks {
        machine.attach_network(network).map_err(|error| error.complaint())?;
    }
    let pidfile = invocation.pidfile.map(|path| PidFile::write(&path)).transpose();
    let pidfile = pidfile.map_err(|error| Complaint::about(Setting::PidFile, &error))?;
    // Last, since it may cut a file to nothing.
    let console = invocation.serial.open();
    let console = console.map_err(|error| Complaint::about(Setting::Console, &error))?;
    let mut registered = register.list(entry);
    monitors.extend(registered.as_mut().and_then(Registered::take_monitor));
    let files = Files { monitors, gdb, console, networks, pidfile, registered };
    inherited.close_named();
    if let Some(complaint) = silent_kernel {
        tracing::warn!("{}", wording.line(&complaint));
    }
    let sandbox = invocation.sandbox.then_some(wording);
    run_machine(Arc::new(machine), files, invocation.stopped, sandbox, daemon)
}

/// Starts what serves a folder to the guest.
fn start_server(share: &ShareConfig, confined: bool) -> Result<FileServer, Complaint> {
    let folder = Folder::open(&share.tag, &share.path, !share.readonly);
    let folder = folder.map_err(|error| {
        Complaint::new(Setting::Share, error.to_string(), "name a folder that is there")
    })?;
    // SAFETY: main has started no thread; what does, the machine and the monitor, come later.
    let server = unsafe { FileServer::start(vec![folder], false, confined) };
    server.map_err(refused(Setting::Share, "the host gives no process"))
}

/// What the process opened besides what the guest sees.
struct Files {
    monitors: Vec<Socket>,
    gdb: Option<gdb::Socket>,
    console: Backend,
    networks: Vec<Network>,
    pidfile: Option<PidFile>,
    registered: Option<Registered>,
}

/// Makes sleeps end when they are due, here and in the threads that come. Linux lets a sleeper
/// oversleep by 50 us: a guest's timers, and the pauses of its
/// processors, are of that size.
fn sleep_exactly() {
    // Where the host refuses, the machine is slower and just as right.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Runs a machine to its end, `stopped` at first or at once. Every file is open. A `sandbox` is worded like
/// this.
fn run_machine(
    machine: Arc<Machine>,
    files: Files,
    stopped: bool,
    sandbox: Option<&'static dyn Wording>,
    daemon: Option<Daemon>,
) -> Result<u8, Complaint> {
    let Files { monitors, gdb, console, .. } = files;
    let _with_the_machine = (files.networks, files.pidfile, files.registered);
    if let Some(daemon) = &daemon {
        let refused = refused(Setting::Daemon, "cannot leave the directory");
        daemon.leave_directory().map_err(refused)?;
    }
    sleep_exactly();
    // Every thread is started after this, and inherits it.
    let largest = machine.largest_disk().max(console.file_size());
    let ioctls = machine.accelerator().ioctls();
    let sandbox = sandbox
        .map(|wording| Sandbox::new(largest, machine.devices(), &ioctls, wording))
        .transpose();
    let sandbox = sandbox.map_err(|error| error.complaint())?.unwrap_or_default();
    sandbox.enter(ThreadKind::Main).map_err(|error| error.complaint())?;
    let control = Control::new(console.output().map_err(refused_by_host)?);
    if stopped {
        control.begin_stopped();
    }
    terminal::on_stop_signal(sandbox.clone(), {
        let control = control.clone();
        move |signal| control.quit_for(signal)
    })
    .map_err(refused_by_host)?;
    let given_up =
        || control.quit_cause().is_some() || daemon.as_ref().is_some_and(Daemon::is_abandoned);
    let cpus = machine.config().cpus;
    let gdb = gdb.map(|socket| gdb::Server::start(socket, &control, cpus, sandbox.clone()));
    let gdb = gdb.transpose().map_err(|error| Complaint::about(Setting::Gdb, &error))?;
    // Dropped last of all, when the terminal is as it was.
    let monitors = start_monitors(monitors, &machine, &control, &sandbox, given_up)?;
    let raw = console.start(&control, &sandbox, given_up).map_err(refused_by_host)?;
    if let Some(daemon) = daemon {
        if control.quit_cause().is_some() {
            let why = "the machine was told to end before it was ready";
            return Err(Complaint::new(Setting::Daemon, why, "start it again"));
        }
        daemon.ready().map_err(refused(Setting::Daemon, "cannot leave the terminal"))?;
    }
    let outcome = machine.run_supervised(&control, &sandbox);
    drop(raw);
    monitors.iter().for_each(Server::bid_farewell);
    drop(gdb);
    drop(monitors);
    // The end of the process frees it faster, and whatever thread still holds it.
    std::mem::forget(machine);
    Ok(match outcome.map_err(|error| error.complaint())? {
        Outcome::PowerOff => SUCCESS,
        Outcome::Quit => control
            .signal()
            .map_or(SUCCESS, |signal| u8::try_from(SIGNALLED + signal).unwrap_or(FAILURE)),
        Outcome::Reset | Outcome::TripleFault => GUEST_RESET,
    })
}

/// Makes the sockets of the monitors.
fn bind(monitors: &[Listen]) -> Result<Vec<Socket>, Complaint> {
    let sockets: Result<_, _> = monitors.iter().map(Socket::bind).collect();
    sockets.map_err(|error| Complaint::about(Setting::Monitor, &error))
}

/// Starts the monitors, and waits for the clients of those that are to wait.
fn start_monitors(
    sockets: Vec<Socket>,
    machine: &Machine,
    control: &Control,
    sandbox: &Sandbox,
    given_up: impl Fn() -> bool,
) -> Result<Vec<Server>, Complaint> {
    let start = |socket| Server::start(socket, Context::new(machine, control), sandbox.clone());
    let servers: Vec<Server> = sockets
        .into_iter()
        .map(start)
        .collect::<Result<_, _>>()
        .map_err(|error| Complaint::about(Setting::Monitor, &error))?;
    for server in &servers {
        server.wait_for_client(&given_up);
    }
    Ok(servers)
}
