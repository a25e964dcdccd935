//! The command, from its start to its end.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use crate::host::{Control, Order, port, pump};
use crate::settings::Settings;
use crate::{doing, privileges, system};

/// How the command ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Never: execve(2) gave this error.
    NotStarted(i32),
}

/// Runs the command to its end, and until all that it wrote is with the host. The inner error is that of its
/// start.
pub(crate) fn run(settings: &Settings, control: &Control) -> Result<io::Result<Ending>, String> {
    let [name, arguments @ ..] = &settings.command[..] else {
        return Err("there is no command".to_owned());
    };
    let mut command = Command::new(name);
    command.args(arguments).env_clear().envs(settings.environment.iter().cloned());
    command.current_dir(&settings.directory);
    let (pumps, terminal) = doing("connect the streams", connect(settings, &mut command))?;
    if settings.container.is_some() {
        doing("make the working directory", fs::create_dir_all(&settings.directory))?;
    }
    confine(settings, &mut command);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    // The ends of pipes that the child has are closed here.
    drop(command);
    let process = child.id() as i32;
    // A container's signals are for its process alone.
    let target = if settings.container.is_some() { process } else { -process };
    let listening = control.listen(move |order| match (order, &terminal) {
        (Order::Signal(signal), _) => system::kill(target, signal),
        (Order::Resize(rows, columns), Some(terminal)) => {
            system::resize(terminal, rows, columns);
        }
        (Order::Resize(..), None) => {}
    });
    doing("listen to the host", listening)?;
    let status = system::reap_until(process);
    // What it left running would keep its streams open.
    system::kill(-1, libc::SIGKILL);
    for pump in pumps {
        let _ = pump.join();
    }
    Ok(Ok(match libc::WIFSIGNALED(status) {
        true => Ending::Killed(libc::WTERMSIG(status)),
        false => Ending::Exited(libc::WEXITSTATUS(status)),
    }))
}

/// Gives the command its standard streams. Returns those that carry what it writes, and the terminal.
fn connect(
    settings: &Settings,
    command: &mut Command,
) -> io::Result<(Vec<JoinHandle<()>>, Option<File>)> {
    let input = guest_vsock::connect(port::INPUT)?;
    let output = guest_vsock::connect(port::OUTPUT)?;
    if let Some((rows, columns)) = settings.terminal {
        let (terminal, program) = system::open_terminal()?;
        let terminal = File::from(terminal);
        system::resize(&terminal, rows, columns);
        command.stdin(program.try_clone()?).stdout(program.try_clone()?).stderr(program);
        pump(input, terminal.try_clone()?.into());
        return Ok((vec![pump(terminal.try_clone()?.into(), output)], Some(terminal)));
    }
    let errors = guest_vsock::connect(port::ERRORS)?;
    let (reads, fed) = io::pipe()?;
    command.stdin(reads);
    pump(input, fed.into());
    let mut pumps = Vec::new();
    let mut written = |stream: OwnedFd| -> io::Result<Stdio> {
        let (read, writes) = io::pipe()?;
        pumps.push(pump(read.into(), stream));
        Ok(writes.into())
    };
    command.stdout(written(output)?);
    command.stderr(written(errors)?);
    Ok((pumps, None))
}

/// Makes the command's process its user's.
fn confine(settings: &Settings, command: &mut Command) {
    let (ids, umask) = (settings.ids.clone(), settings.umask);
    let terminal = settings.terminal.is_some();
    let rights = settings.container.as_ref().map(privileges::Rights::of);
    system::before_exec(command, move || {
        system::new_session(terminal)?;
        match &rights {
            Some(rights) => rights.take(|| system::become_user(&ids))?,
            None => system::become_user(&ids)?,
        }
        system::set_umask(umask);
        Ok(())
    });
}
