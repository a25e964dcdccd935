//! `cloister oci`: containers in machines with SGX, for what drives an OCI runtime (runc's command line and the OCI
//! runtime specification, runtime.md): conmon for podman, containerd-shim-runc-v2 for containerd.
//!
//! `create` makes the machine in a process of its own, whose number is the container's and whose exit code is that
//! of the container's process. It waits at a FIFO, by which `start` and `kill` reach it. What is known of a
//! container is a folder ([`state`]).

mod annotations;
mod bundle;
mod console;
mod create;
mod features;
mod log;
mod mounts;
mod names;
mod state;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use libc::{SIGKILL, SIGTERM};

use crate::cli::on_or_off;
use crate::sandbox::Inherited;
use crate::standard::{complain, print};
use log::Log;
use state::{Containers, Status};

/// By this name the program is a runtime: who drives runtimes takes the name of one program.
const NAME: &str = "cloister-oci";
const FAILURE: u8 = 1;

/// Options of `cloister oci`.
#[derive(Args, Debug)]
pub struct OciArgs {
    /// Folder of what is known of containers [default: cloister-oci in XDG_RUNTIME_DIR, or in /run where root may write to it]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File that errors are written to as well
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How: text or json
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: String,
    /// Kernel of the machines, as for cloister exec
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Directory of the SGX platform of all containers [default: each has one that ends with it]
    #[arg(long, value_name = "DIR")]
    platform: Option<PathBuf>,
    /// What executes the processors: this program (soft), the host's KVM (kvm), or KVM where it does well (auto)
    #[arg(long, value_name = "auto|kvm|soft", default_value = "soft")]
    accel: String,
    /// Confine the processes to the system calls they need: on or off
    #[arg(long, value_name = "on|off", default_value = "on")]
    sandbox: String,
    /// For runc; there is nothing more to say
    #[arg(long, hide = true)]
    debug: bool,
    /// For runc; no cgroup is made
    #[arg(long, hide = true)]
    systemd_cgroup: bool,
    /// For runc
    #[arg(long, hide = true, value_name = "VALUE")]
    rootless: Option<String>,
    #[command(subcommand)]
    command: OciCommand,
}

#[derive(Subcommand, Debug)]
enum OciCommand {
    /// Make a container, which waits for its start
    Create(CreateArgs),
    /// Start a container that was created
    Start {
        /// Its name
        id: String,
    },
    /// Show what a container is and does, as JSON
    State {
        /// Its name
        id: String,
    },
    /// Send a signal to a container's process
    Kill {
        /// For runc; all processes of a container end with it
        #[arg(short, long, hide = true)]
        all: bool,
        /// Its name
        id: String,
        /// Name or number [default: SIGTERM]
        signal: Option<String>,
    },
    /// Forget a container that has ended
    Delete {
        /// End it first, and say nothing if there is none
        #[arg(short, long)]
        force: bool,
        /// Its name
        id: String,
    },
    /// Show what the runtime can do, as JSON
    Features,
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// Folder with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// File for the number of the container's process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Socket that the terminal is sent to, where config.json wants one
    #[arg(long, value_name = "SOCK")]
    console_socket: Option<PathBuf>,
    /// For runc; the machine has a root of its own
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// For runc; the machine has keyrings of its own
    #[arg(long, hide = true)]
    no_new_keyring: bool,
    /// For runc; no further file can be handed to a machine
    #[arg(long, hide = true, value_name = "N")]
    preserve_fds: Option<u32>,
    /// Its name
    id: String,
}

/// The words of a command line, of which the first is the program: as a runtime by its name, it is `cloister oci`.
#[must_use]
pub fn words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name());
    if name.is_some_and(|name| name == NAME) {
        words.insert(1, "oci".into());
    }
    words
}

/// Does what a container engine asks for, and returns the exit code.
///
/// # Safety
///
/// The process has one thread, as for [`crate::daemon::detach`].
#[expect(unsafe_code, reason = "hands the promise of one thread on")]
#[must_use]
pub unsafe fn run(args: OciArgs) -> u8 {
    // Nothing of the engine's is open in a machine.
    if let Err(error) = Inherited::close([]) {
        complain(&format!("the host does not close open files: {error}"));
        return FAILURE;
    }
    let log = match Log::open(args.log.as_deref(), &args.log_format) {
        Ok(log) => log,
        Err(line) => {
            complain(&line);
            return FAILURE;
        }
    };
    let done = match &args.command {
        // SAFETY: the caller says that there is one thread.
        OciCommand::Create(create) => unsafe { create::create(&args, create, &log) },
        command => perform(&args, command).map(|text| print_all(&text)),
    };
    done.unwrap_or_else(|line| {
        log.error(&line);
        complain(&line);
        FAILURE
    })
}

fn print_all(text: &str) -> u8 {
    match print(text) {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("standard output: it cannot be written: {error}"));
            FAILURE
        }
    }
}

/// What there is to print.
fn perform(args: &OciArgs, command: &OciCommand) -> Result<String, String> {
    let containers = Containers::at(args.root.clone());
    match command {
        OciCommand::Create(_) => {}
        OciCommand::Start { id } => {
            let container = containers.find(id)?;
            match container.status() {
                Status::Created => container.start()?,
                Status::Running => return Err("cannot start an already running container".into()),
                Status::Stopped => return Err("cannot start a container that has stopped".into()),
            }
        }
        OciCommand::State { id } => return containers.find(id)?.report(),
        OciCommand::Kill { id, signal, all } => {
            let signal = match signal {
                Some(text) => names::signal(text)?,
                None => SIGTERM,
            };
            let container = containers.find(id)?;
            match (container.status(), all) {
                // All of its processes have ended with it.
                (Status::Stopped, true) => {}
                (Status::Stopped, false) => return Err("container not running".into()),
                _ => container.signal(signal)?,
            }
        }
        OciCommand::Delete { id, force } => {
            let container = match containers.find(id) {
                Err(_) if *force => return Ok(String::new()),
                container => container?,
            };
            let status = container.status();
            match (status, force) {
                (Status::Stopped, _) => {}
                (Status::Running, false) => {
                    return Err(format!(
                        "cannot delete container {id} that is not stopped: running: kill it first, or add --force"
                    ));
                }
                // One that was never started has nothing to lose.
                _ => {
                    container.signal(SIGKILL)?;
                    container.await_end()?;
                }
            }
            container.delete()?;
        }
        OciCommand::Features => return Ok(features::text()),
    }
    Ok(String::new())
}

/// The value of `--sandbox`.
fn sandbox(args: &OciArgs) -> Result<bool, String> {
    let wrong = || {
        format!("--sandbox: it is on or off, not {:?}: leave it out, and it is on", args.sandbox)
    };
    on_or_off(&args.sandbox).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
