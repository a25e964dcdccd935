//! `cloister exec`: a program of the host in a machine with SGX.
//!
//! The machine boots a stock kernel with a PID 1 of our own (`guest/exec-init`), whose root is the host's,
//! read-only under an overlay in RAM. The command's streams are streams of vsock, and a further one carries
//! signals, the terminal's size and the command's end.

mod console;
mod container;
mod fetch;
mod initramfs;
mod kernel;
mod keys;
mod orders;
mod packages;
mod run;
mod session;
mod settings;
mod streams;
mod waiting;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use container::{Container, Limit, Mount, Source};
pub use fetch::{FetchError, Fetched, Size};
pub use kernel::Kernel;
pub use orders::{Orders, START};
pub use run::run;

use crate::attestation::Certified;
use crate::config::MachineConfig;
use crate::net::NetConfig;

/// The exit code of a failure that is not the command's.
pub const FAILURE: u8 = 125;
/// The exit code of a command that was not given more time, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// The exit codes of a command that cannot be run and of one that is not there, as shells have them.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A folder of the host that the command sees at its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VisibleFolder {
    /// Its place on the host.
    pub path: PathBuf,
    /// Its place for the command: the same, or a link to it on the host.
    pub place: PathBuf,
    /// The command can change it.
    pub writable: bool,
}

/// Where the kernel's console goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelConsole {
    /// Nowhere, but for the last lines of a machine that fails.
    Kept,
    /// Standard error.
    Errors,
    /// A file that is made anew.
    File(PathBuf),
}

/// What is to be run, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecConfig {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// The machine; what it boots is not looked at.
    pub machine: MachineConfig,
    /// The kernel that was named or found, if one was.
    pub kernel: Option<Kernel>,
    /// The folder that is the root, unless the machine's disk has it.
    pub root: Option<PathBuf>,
    /// Folders beside the root.
    pub folders: Vec<VisibleFolder>,
    /// Network devices.
    pub networks: Vec<NetConfig>,
    /// The working directory of the command.
    pub directory: PathBuf,
    /// Variables of the command.
    pub environment: Vec<(OsString, OsString)>,
    /// User and group of the command, or those of this process.
    pub user: Option<(u32, u32)>,
    /// Whether the command has a terminal, or just as this process has.
    pub terminal: Option<bool>,
    /// Where the kernel's console goes.
    pub console: KernelConsole,
    /// Whose REPORTs are quoted in the machine.
    pub attest: Option<Certified>,
    /// How long the command may run.
    pub timeout: Option<Duration>,
    /// Say nothing but errors.
    pub quiet: bool,
    /// Confine the processes.
    pub sandbox: bool,
    /// The root is a container's, which has this instead of what a command sees of the host.
    pub container: Option<Container>,
}

impl ExecConfig {
    /// The kernel that was named or found, or else one that is fetched. To be called before the environment is
    /// forgotten, which says where to and how.
    ///
    /// # Errors
    ///
    /// As for [`Kernel::fetch`].
    pub fn kernel(&self) -> Result<Fetched, FetchError> {
        match &self.kernel {
            Some(kernel) => Ok(Fetched::Kernel(kernel.clone())),
            None => Kernel::fetch(self.quiet),
        }
    }
}
