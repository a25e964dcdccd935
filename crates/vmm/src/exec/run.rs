//! The machine and what connects the command with this process.

use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloister_sgx::AttributeFlags;
use rustix::fs::Mode;
use rustix::process::{getegid, geteuid, getgroups, umask};
use rustix::termios::{isatty, tcgetwinsize};

use super::console::LastLines;
use super::orders::{Orders, Released};
use super::session::{BOOT_LIMIT, End, Session};
use super::settings::Settings;
use super::waiting::Waiting;
use super::{Container, ExecConfig, Kernel, KernelConsole, Source, initramfs, streams};
use crate::attestation::start_service;
use crate::complaint::{Complaint, Setting, Wording};
use crate::config::{BootConfig, MachineConfig};
use crate::host_file::open_for_writing;
use crate::machine::{Control, Machine, Outcome};
use crate::net::{GATEWAY, GUEST, Link, NAME_SERVER, Network, PREFIX, Passt};
use crate::own_file::start_keeper;
use crate::qmp::{Context, Server};
use crate::register::{Entry, Register, Registered};
use crate::sandbox::{Sandbox, ThreadKind};
use crate::shares::{FileServer, Folder};
use crate::standard::{PolledOutput, complain};
use crate::terminal::{self, RawMode, SIGNALLED};

/// PID 1 of the machine; nothing, where it could not be built.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
/// The guest's CID: no other machine of the host sees it.
const CID: u32 = 3;
/// The tag of the shares, and the root among them (`guest/exec-init`, `root.rs`).
const TAG: &str = "cloister";
const ROOT: &str = "root";
/// How long the guest may take what it has seen of the root for granted.
const ROOT_IS_STEADY: Duration = Duration::from_secs(3600);

/// The kernel's command line: nothing of it is the user's. A panic ends the machine at once.
const QUIET: &str = "console=ttyS0 loglevel=3 panic=-1";
const LOUD: &str = "console=ttyS0 panic=-1";

/// Runs the command on this kernel to its end and returns its exit code. `passt` is the program of the host's network,
/// `register` the list of the user's machines, and `wording` names options. With `orders` the machine is made, and
/// begins when they say so.
///
/// # Errors
///
/// What is wrong with an option, a file or the host. The command was not run, or its end is not known.
///
/// # Safety
///
/// The process has one thread, as for [`crate::daemon::detach`].
#[expect(unsafe_code, reason = "hands the promise of one thread on")]
pub unsafe fn run(
    config: ExecConfig,
    kernel: Kernel,
    passt: &Passt,
    register: &Register,
    wording: &'static dyn Wording,
    orders: Option<Orders<'_>>,
) -> Result<u8, Complaint> {
    if INIT.is_empty() {
        let why = "this cloister was built without the program that is PID 1 of the machine";
        let fix = "install a static C library (libc6-dev, glibc-static) and build it again";
        return Err(Complaint { setting: None, why: why.into(), fix: Some(fix.into()) });
    }
    let terminal = has_terminal(config.terminal)?;
    let folders = open_folders(&config)?;
    let settings = settings(&config, terminal);
    let modules = initramfs::Modules {
        folder: &kernel.modules,
        network: !config.networks.is_empty(),
        disk: config.root.is_none(),
    };
    let archive = initramfs::make(INIT, &modules, &settings);
    let archive = archive.map_err(|error| Complaint::about(Setting::Kernel, &error))?;
    // SAFETY: the caller says that there is one thread.
    let server = unsafe { FileServer::start(folders, true, config.sandbox) };
    let server = server.map_err(refused("the host gives no process"))?;
    let quotes = match &config.attest {
        // SAFETY: the caller says that there is one thread.
        Some(certified) => Some(unsafe { start_service(certified, config.sandbox) }),
        None => None,
    };
    let quotes = quotes.transpose().map_err(|error| Complaint::of_nothing_set(&error))?;
    if config.sandbox && config.networks.iter().any(|network| network.socket().is_some()) {
        // SAFETY: the caller says that there is one thread.
        unsafe { start_keeper() }.map_err(refused("the host gives no process"))?;
    }
    let networks = Network::open_all(&config.networks, passt)?;
    let archive = initramfs::in_memory(&archive).map_err(refused("the host gives no memory"))?;
    let quiet = config.console == KernelConsole::Kept;
    let boot = BootConfig::Kernel {
        kernel: kernel.image,
        initrd: Some(format!("/proc/self/fd/{}", archive.as_raw_fd()).into()),
        cmdline: if quiet { QUIET } else { LOUD }.to_owned(),
    };
    let (name, started_by) = name(&config);
    let machine =
        MachineConfig { name: Some(name.clone()), boot, no_reboot: true, ..config.machine.clone() };
    let mut machine = Machine::new(machine).map_err(|error| error.complaint())?;
    drop(archive);
    let (streams, offered) = streams::pairs().map_err(refused("the host gives no sockets"))?;
    if let Some(quotes) = quotes {
        offered.offer_quotes(quotes);
    }
    let offered = Arc::new(offered);
    machine.attach_vsock(CID, offered.clone()).map_err(|error| error.complaint())?;
    let attached = machine.attach_file_system(TAG.to_owned(), server.socket());
    attached.map_err(|error| error.complaint())?;
    for network in &networks {
        machine.attach_network(network).map_err(|error| error.complaint())?;
    }
    let last_lines = LastLines::default();
    let output = console(&config.console, &last_lines)?;

    let accel = machine.accelerator().name().to_owned();
    let entry = Entry { accel, ..Entry::new(name, started_by, &config.machine) };
    let mut registered = register.list(entry);
    let monitor = registered.as_mut().and_then(Registered::take_monitor);
    let orders = match orders.map(Orders::await_start) {
        Some(Ok(Released::Started(orders))) => Some(orders),
        Some(Ok(Released::Ended(signal))) => return Ok(signalled(signal)),
        Some(Err(error)) => return Err(refused("the start cannot be waited for")(error)),
        None => None,
    };
    // From here on signals are the command's.
    terminal::hold_stop_signals().map_err(refused("the host does not let signals wait"))?;
    // What the command writes to this process's output is as long as it likes.
    let largest = u64::MAX;
    let sandbox = config.sandbox.then(|| {
        Sandbox::new(largest, machine.devices(), &machine.accelerator().ioctls(), wording)
    });
    let sandbox = sandbox.transpose().map_err(|error| error.complaint())?.unwrap_or_default();
    sandbox.enter(ThreadKind::Main).map_err(|error| error.complaint())?;
    let control = Control::new(output);
    let name = config.command[0].to_string_lossy().into_owned();
    let started = Session::start(&control, &sandbox, streams, offered, terminal, name);
    let session = started.map_err(refused("the host gives no thread"))?;
    let waiting = Arc::new(Waiting::new(!config.quiet));
    let watching = session
        .watch_time(config.timeout, waiting.clone(), &sandbox)
        .and_then(|()| session.watch_folders(server.socket(), &sandbox));
    let obeying = orders.map_or(Ok(()), |orders| session.obey(orders, &sandbox));
    watching.and(obeying).map_err(refused("the host gives no thread"))?;
    let raw = if terminal { RawMode::enter() } else { Ok(None) };
    let raw = raw.map_err(refused("the terminal refuses raw mode"))?;
    let monitor = monitor
        .map(|socket| Server::start(socket, Context::new(&machine, &control), sandbox.clone()));
    let monitor = monitor.transpose().map_err(|error| Complaint::of_nothing_set(&error))?;
    let machine = Arc::new(machine);
    let outcome = machine.run_supervised(&control, &sandbox);
    drop(raw);
    waiting.finish();
    // The end of the process frees it faster, and whatever thread still holds it. Who looks on learns of the end by
    // that of the connection.
    std::mem::forget((machine, monitor));
    let end = session.end();
    if let Some(End::Code(code)) = end {
        return Ok(code);
    }
    if let Some(signal) = control.signal() {
        return Ok(signalled(signal));
    }
    if end == Some(End::NoFolders) {
        let why = "the process that serves the host's folders has ended before the command did";
        let fix = "look whether the host ran out of memory and killed it, and run this again";
        return Err(Complaint { setting: None, why: why.into(), fix: Some(fix.into()) });
    }
    if let Some(End::Unwritten(what, error)) = end {
        let why = format!("{what} of the command cannot be written: {}", io::Error::from(error));
        let fix = "make room there, or send it elsewhere";
        return Err(Complaint { setting: None, why: why.into(), fix: Some(fix.into()) });
    }
    let outcome = outcome.map_err(|error| error.complaint())?;
    if outcome == Outcome::Quit && end.is_none() {
        let why = "a monitor has ended the machine before the command did";
        return Err(Complaint { setting: None, why: why.into(), fix: None });
    }
    for line in last_lines.text().lines() {
        complain(line);
    }
    if end == Some(End::NoBoot) {
        let seconds = BOOT_LIMIT.as_secs();
        let why =
            format!("the machine has not booted within {seconds} s: the lines above are its last");
        return Err(Complaint::new(Setting::Kernel, why, "name another kernel"));
    }
    let why = "the machine ended before the command did: the lines above are its last";
    let fix = "if it had too little memory, give it more";
    Err(Complaint::new(Setting::Memory, why, fix))
}

/// The machine's name, and the command of `cloister` that it is started with.
fn name(config: &ExecConfig) -> (String, &'static str) {
    match &config.container {
        Some(container) => (container.id.clone(), "oci"),
        None => {
            let command = &config.command[0];
            let name = Path::new(command).file_name().unwrap_or(command);
            (name.to_string_lossy().into_owned(), "exec")
        }
    }
}

/// The exit code of what this signal has ended.
pub(super) fn signalled(signal: i32) -> u8 {
    u8::try_from(SIGNALLED.saturating_add(signal)).unwrap_or(super::FAILURE)
}

/// What the host refuses that nothing was set for.
fn refused(what: &'static str) -> impl FnOnce(io::Error) -> Complaint {
    move |error| Complaint { setting: None, why: format!("{what}: {error}").into(), fix: None }
}

/// Whether the command has a terminal: as it was asked for, or where this process has one for both.
fn has_terminal(wanted: Option<bool>) -> Result<bool, Complaint> {
    let (input, output) = (isatty(rustix::stdio::stdin()), isatty(rustix::stdio::stdout()));
    if wanted == Some(true) && !input {
        let why = "a terminal is asked for, and standard input is none";
        return Err(Complaint { setting: None, why: why.into(), fix: None });
    }
    Ok(wanted.unwrap_or(input && output))
}

/// Opens the root and the folders beside it, each by the name that [`share`] gives it.
fn open_folders(config: &ExecConfig) -> Result<Vec<Folder>, Complaint> {
    let complaint = |error: &dyn std::error::Error| {
        Complaint::new(Setting::Share, error.to_string(), "name a folder that is there")
    };
    let mut folders = Vec::new();
    if let Some(root) = &config.root {
        let root = Folder::open(ROOT, root, false).map_err(|error| complaint(&error))?;
        folders.push(root.valid_for(ROOT_IS_STEADY));
    }
    for (index, mount) in config.container.iter().flat_map(|of| of.mounts.iter().enumerate()) {
        if let Source::Host { path, writable } = &mount.source {
            let opened = Folder::open_any(&bound(index), path, *writable);
            folders.push(opened.map_err(|error| complaint(&error))?);
        }
    }
    for (index, folder) in config.folders.iter().enumerate() {
        let opened = Folder::open(&share(index), &folder.path, folder.writable);
        folders.push(opened.map_err(|error| complaint(&error))?);
    }
    Ok(folders)
}

/// The name of a folder beside the root.
fn share(index: usize) -> String {
    format!("folder{index}")
}

/// The name of what a container's mount of this number shows.
fn bound(index: usize) -> String {
    format!("mount{index}")
}

/// What PID 1 is told.
fn settings(config: &ExecConfig, terminal: bool) -> Vec<u8> {
    let mut settings = Settings::default();
    for word in &config.command {
        settings.put(b'A', word.as_bytes());
    }
    for (name, value) in &config.environment {
        settings.put_pair(b'E', name, value);
    }
    settings.put(b'D', config.directory.as_os_str().as_bytes());
    for (index, folder) in config.folders.iter().enumerate() {
        settings.put_pair(b'M', share(index).as_ref(), folder.place.as_os_str());
    }
    if config.root.is_none() {
        settings.put(b'B', b"");
    }
    if let Some(container) = &config.container {
        put_container(&mut settings, container);
    }
    let groups = config.container.iter().flat_map(|container| container.groups.iter().copied());
    settings.put_numbers(b'I', ids(config.user).into_iter().chain(groups));
    let mask = config.container.as_ref().map_or_else(own_umask, |container| container.umask);
    settings.put_numbers(b'K', [mask]);
    if terminal {
        let (rows, columns) = terminal_size();
        settings.put_numbers(b'T', [rows, columns]);
    }
    for (index, network) in config.networks.iter().enumerate() {
        if let Link::User(_) = network.link {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let addresses = [GUEST, GATEWAY, NAME_SERVER].map(u32::from);
            settings.put_numbers(b'N', [index, PREFIX.into()].into_iter().chain(addresses));
        }
    }
    let attributes = &config.machine.cpu.capabilities.attributes;
    if attributes.contains(AttributeFlags::PROVISIONKEY) {
        settings.put(b'P', b"");
    }
    if config.attest.is_some() {
        settings.put(b'Q', b"");
    }
    settings.into_bytes()
}

/// What a container has besides.
fn put_container(settings: &mut Settings, container: &Container) {
    settings.put(b'H', container.host_name.as_bytes());
    settings.put_numbers(b'O', [u32::from(container.fixed_root)]);
    for (index, mount) in container.mounts.iter().enumerate() {
        let (kind, source) = match &mount.source {
            Source::Host { .. } => ("bind", bound(index)),
            Source::Kind(kind) => (kind.as_str(), kind.clone()),
        };
        let texts = [kind, &source, &mount.place, &mount.options].join("\0");
        settings.put(b'F', &[&mount.flags.to_le_bytes(), texts.as_bytes()].concat());
    }
    for (letter, paths) in [(b'V', &container.masked), (b'Y', &container.fixed)] {
        for path in paths {
            settings.put(letter, path.as_bytes());
        }
    }
    for (name, value) in &container.sysctls {
        settings.put_pair(b'S', name.as_ref(), value.as_ref());
    }
    for limit in &container.limits {
        let values = [limit.soft, limit.hard].map(u64::to_le_bytes).concat();
        settings.put(b'L', &[&limit.resource.to_le_bytes()[..], &values].concat());
    }
    settings.put(b'G', &container.capabilities.map(u64::to_le_bytes).concat());
    if container.no_new_privileges {
        settings.put(b'W', b"");
    }
}

/// The mask of new files' modes of this process.
fn own_umask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.as_raw_mode()
}

/// User, group and further groups.
fn ids(user: Option<(u32, u32)>) -> Vec<u32> {
    if let Some((user, group)) = user {
        return vec![user, group];
    }
    let groups = getgroups().unwrap_or_default();
    let own = [geteuid().as_raw(), getegid().as_raw()];
    own.into_iter().chain(groups.into_iter().map(rustix::process::Gid::as_raw)).collect()
}

/// Rows and columns of the terminal; the customary ones of one that does not tell.
pub(super) fn terminal_size() -> (u32, u32) {
    match tcgetwinsize(rustix::stdio::stdin()) {
        Ok(size) if size.ws_row != 0 && size.ws_col != 0 => {
            (size.ws_row.into(), size.ws_col.into())
        }
        _ => (24, 80),
    }
}

/// Where the kernel's console goes.
fn console(
    console: &KernelConsole,
    last_lines: &LastLines,
) -> Result<Box<dyn Write + Send>, Complaint> {
    Ok(match console {
        KernelConsole::Kept => Box::new(last_lines.clone()),
        KernelConsole::Errors => Box::new(PolledOutput::new(io::stderr())),
        KernelConsole::File(path) => {
            let file = open_for_writing(path, 0o666, true).map_err(|error| {
                let why = format!("cannot make {}: {error}", path.display());
                let fix = "name a file in a directory that can be written";
                Complaint::new(Setting::Console, why, fix)
            })?;
            Box::new(PolledOutput::new(file))
        }
    })
}
