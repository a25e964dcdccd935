//! `create`: from config.json to a machine that waits for its start.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::SystemTime;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_current_timer_slack};

use super::bundle::{Process, Spec};
use super::console::Terminal;
use super::log::{Log, time};
use super::state::{Containers, State, absolute, begun};
use super::{CreateArgs, FAILURE, OciArgs, annotations, sandbox};
use crate::cli::{OciWording, parse_accelerator};
use crate::complaint::Wording as _;
use crate::daemon::{self, Side};
use crate::exec::{self, ExecConfig, Fetched, Kernel, KernelConsole, Orders};
use crate::net::Passt;
use crate::register::Register;
use crate::sandbox::forget_environment;
use crate::standard::complain;

/// Makes the container, and returns the exit code: of the process that was asked for it when it waits for its start, and
/// of the container's own process when it has ended.
///
/// # Safety
///
/// The process has one thread, as for [`daemon::detach`].
#[expect(unsafe_code, reason = "forks while there is one thread")]
pub(super) unsafe fn create(args: &OciArgs, create: &CreateArgs, log: &Log) -> Result<u8, String> {
    let bundle = absolute(&create.bundle)?;
    let spec = Spec::read(&bundle)?;
    let process = spec.process.as_ref().ok_or("config.json: process: it is missing: add it")?;
    let config = config(args, &create.id, &spec, process, &bundle)?;
    let kernel = match config.kernel() {
        Ok(Fetched::Kernel(kernel)) => kernel,
        Ok(Fetched::Ended(code)) => return Ok(code),
        Err(error) => return Err(OciWording.line(&error.complaint())),
    };
    let passt = Passt::find(&config.networks);
    let register = Register::of_user();
    let new = Containers::at(args.root.clone()).make(&create.id)?;
    let made = (|| {
        if !config.networks.is_empty() {
            join_network(&spec)?;
        }
        let terminal = terminal(process, create)?;
        let orders = new.orders().map_err(|error| format!("cannot wait for orders: {error}"))?;
        // SAFETY: the caller says that there is one thread.
        let side = unsafe { daemon::detach() };
        Ok((side.map_err(|error| format!("the host gives no process: {error}"))?, terminal, orders))
    })();
    let (side, terminal, orders) = made.inspect_err(|_: &String| new.remove())?;
    let daemon = match side {
        Side::Ready => return Ok(0),
        Side::Failed => {
            new.remove();
            // The other has said why.
            return Ok(FAILURE);
        }
        Side::Ended => {
            new.remove();
            return Err(
                "the container's process was ended before it was ready: create it again".into()
            );
        }
        Side::Daemon(daemon) => RefCell::new(Some(daemon)),
    };
    let rootfs = config.root.clone().unwrap_or_default();
    let ready = || {
        let state = state(create, &spec, &bundle, &rootfs)?;
        new.write(&state)?;
        if let Some(path) = &create.pid_file {
            std::fs::write(path, state.pid.to_string())?;
        }
        match daemon.take() {
            Some(daemon) => daemon.ready_with_streams(),
            None => Ok(()),
        }
    };
    let ran = terminal.map_or(Ok(()), Terminal::take);
    let ran =
        ran.map_err(|error| format!("the terminal cannot be taken: {error}")).and_then(|()| {
            let orders = Orders { from: orders, ready: Box::new(ready) };
            // As for every machine: a guest's timers are of the size by which sleepers oversleep.
            let _ = set_current_timer_slack(NonZeroU64::new(1));
            if config.sandbox {
                // SAFETY: the caller says that there is one thread.
                unsafe { forget_environment() };
            }
            // SAFETY: as above.
            let ended =
                unsafe { exec::run(config, kernel, &passt, &register, &OciWording, Some(orders)) };
            ended.map_err(|complaint| OciWording.line(&complaint))
        });
    let Err(line) = ran else { return ran };
    // Told before the process that was asked ends, which the engine waits for.
    complain(&line);
    if daemon.borrow().is_some() {
        log.error(&line);
    }
    drop(daemon.take());
    Ok(exec::FAILURE)
}

/// What is to be run.
fn config(
    args: &OciArgs,
    id: &str,
    spec: &Spec,
    process: &Process,
    bundle: &Path,
) -> Result<ExecConfig, String> {
    let root = spec.root.as_ref().ok_or("config.json: root: it is missing: add it")?;
    if process.args.is_empty() {
        return Err("config.json: process.args: there is no command: add one".into());
    }
    let mut machine = annotations::machine(spec)?;
    machine.platform.clone_from(&args.platform);
    machine.accelerator = parse_accelerator(&args.accel).map_err(|error| error.to_string())?;
    let config = ExecConfig {
        command: process.args.iter().map(Into::into).collect(),
        machine,
        kernel: args.kernel.as_deref().map(Kernel::at).or_else(Kernel::find),
        root: Some(absolute(&bundle.join(&root.path))?),
        folders: Vec::new(),
        networks: annotations::networks(spec)?,
        directory: process.cwd.clone(),
        environment: Spec::environment(process)?,
        user: Some((process.user.uid, process.user.gid)),
        terminal: Some(process.terminal),
        console: KernelConsole::Kept,
        attest: None,
        timeout: None,
        quiet: true,
        sandbox: sandbox(args)?,
        container: Some(spec.container(id, process, bundle)?),
    };
    annotations::check(&config.machine)?;
    Ok(config)
}

/// Goes into the network namespace that the container was to have, where there is one: what opens its connections is
/// started there.
fn join_network(spec: &Spec) -> Result<(), String> {
    let Some(path) = spec.network_namespace() else { return Ok(()) };
    let join = || -> io::Result<()> {
        let namespace = File::open(path)?;
        let kind = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
    };
    join().map_err(|error| {
        format!("config.json: linux.namespaces: cannot join {}: {error}", path.display())
    })
}

/// The container's terminal, if it is to have one.
fn terminal(process: &Process, create: &CreateArgs) -> Result<Option<Terminal>, String> {
    match (process.terminal, &create.console_socket) {
        (true, Some(socket)) => Terminal::send(socket).map(Some),
        (true, None) => Err(
            "config.json: process.terminal: there is nobody to give it to: add --console-socket"
                .into(),
        ),
        (false, Some(_)) => {
            Err("--console-socket: config.json wants no terminal: leave it out".into())
        }
        (false, None) => Ok(None),
    }
}

fn state(create: &CreateArgs, spec: &Spec, bundle: &Path, rootfs: &Path) -> io::Result<State> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    Ok(State {
        id: create.id.clone(),
        pid,
        begun: begun(pid).ok_or(io::ErrorKind::NotFound)?,
        bundle: bundle.to_owned(),
        rootfs: rootfs.to_owned(),
        created: time(SystemTime::now()),
        annotations: spec.annotations.clone(),
    })
}
