//! What a command line asks for, in either form.

use std::path::{Path, PathBuf};

use crate::chardev::Chardev;
use crate::complaint::{Complaint, Setting};
use crate::config::{BootConfig, MAX_CMDLINE, MachineConfig};
use crate::gdb;
use crate::net::NetConfig;
use crate::qmp::Listen;
use crate::register::Entry;
use crate::shares::ShareConfig;
use crate::vsock::VsockConfig;

/// A machine, and how it is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// The machine.
    pub machine: MachineConfig,
    /// The back end of its consoles.
    pub serial: Chardev,
    /// Where its QMP monitors listen.
    pub monitors: Vec<Listen>,
    /// Where a debugger connects to.
    pub gdb: Option<gdb::Address>,
    /// The machine stands at its beginning until a monitor or a debugger has it go on.
    pub stopped: bool,
    /// Folders of the host.
    pub shares: Vec<ShareConfig>,
    /// The vsock device, if there is one.
    pub vsock: Option<VsockConfig>,
    /// Network devices.
    pub networks: Vec<NetConfig>,
    /// Confine the process to the system calls it needs.
    pub sandbox: bool,
    /// The name that the process takes.
    pub process_name: Option<String>,
    /// The file that gets the process's number.
    pub pidfile: Option<PathBuf>,
    /// Go on without the terminal.
    pub daemonize: bool,
}

impl Invocation {
    /// What the list of the user's machines says of the machine, which a command of `cloister` started.
    #[must_use]
    pub fn entry(&self, command: &str) -> Entry {
        let name = self.machine.display_name().to_owned();
        let absolute = |listen: &Listen| std::path::absolute(&listen.path).ok();
        let sockets = self.monitors.iter().filter_map(absolute);
        Entry {
            qmp: sockets.map(|path| path.to_string_lossy().into_owned()).collect(),
            ..Entry::new(name, command, &self.machine)
        }
    }

    /// Whether the process makes files that go with it.
    #[must_use]
    pub fn has_own_files(&self) -> bool {
        let socket = matches!(self.serial, Chardev::Unix(_))
            || matches!(self.gdb, Some(gdb::Address::Unix(_)));
        let socket = socket || self.vsock.is_some() || !self.monitors.is_empty();
        let socket = socket || self.network_sockets().next().is_some();
        socket || self.pidfile.is_some()
    }

    /// Sockets that are made for peers of network devices, and what each is set by.
    pub(crate) fn network_sockets(&self) -> impl Iterator<Item = (Setting, &Path)> {
        self.networks.iter().filter_map(|network| Some((network.setting, network.socket()?)))
    }

    /// What a kernel that is told of no console will not do, if its line is the user's: print.
    #[must_use]
    pub fn silent_kernel(&self) -> Option<Complaint> {
        match &self.machine.boot {
            BootConfig::Kernel { cmdline, .. }
                // A line that no kernel takes is refused for that.
                if self.serial != Chardev::Null
                    && cmdline.len() <= MAX_CMDLINE
                    && !names_console(cmdline) =>
            {
                let why = "the kernel's command line names no console, so nothing will be printed here";
                Some(Complaint::new(Setting::CommandLine, why, "add console=ttyS0"))
            }
            _ => None,
        }
    }
}

/// Whether a kernel's command line names a console, for now or for its early messages.
#[must_use]
pub fn names_console(cmdline: &str) -> bool {
    let mut words = cmdline.split_ascii_whitespace();
    words.any(|word| {
        ["console=", "earlycon", "earlyprintk"].iter().any(|start| word.starts_with(start))
    })
}
