//! What the options say as they are read, and the machine that they make together.

use std::path::PathBuf;

use super::chardev::{Chardevs, Debugger};
use super::epc::{self, SgxEpc};
use super::list::OptionList;
use super::machine::MachineOptions;
use super::network::Networks;
use super::numa::Numa;
use super::object::{Backends, Kind};
use super::{QemuError, QemuWording};
use crate::config::{BootConfig, DiskConfig, MachineConfig, Translate};
use crate::cpu_flags::CpuConfig;
use crate::invocation::Invocation;

/// RAM without `-m`, in bytes, as in QEMU.
const DEFAULT_RAM: u64 = 128 << 20;

/// What the options say, family by family, as they are read.
#[derive(Default)]
pub(super) struct Line {
    pub(super) machine: MachineOptions,
    pub(super) cpu: Option<CpuConfig>,
    pub(super) cpus: Option<u32>,
    pub(super) ram: Option<u64>,
    pub(super) backends: Backends,
    pub(super) sgx_epc: Vec<SgxEpc>,
    pub(super) numa: Numa,
    pub(super) kernel: Option<PathBuf>,
    pub(super) initrd: Option<PathBuf>,
    pub(super) append: Option<String>,
    pub(super) drives: Vec<DiskConfig>,
    pub(super) networks: Networks,
    pub(super) chardevs: Chardevs,
    pub(super) gdb: Option<Debugger>,
    pub(super) stopped: bool,
    pub(super) no_reboot: bool,
    pub(super) name: Option<String>,
    pub(super) process_name: Option<String>,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) daemonize: bool,
    pub(super) sandbox: Option<bool>,
    pub(super) platform: Option<PathBuf>,
    pub(super) launch_key: Option<[u8; 32]>,
}

/// Notes the value of an option that is given once at most.
pub(super) fn once<T>(
    option: &'static str,
    slot: &mut Option<T>,
    value: T,
) -> Result<(), QemuError> {
    match slot.replace(value) {
        Some(_) => Err(QemuError::Twice(option)),
        None => Ok(()),
    }
}

impl Line {
    /// Reads a `-name`, which may be called another `option`.
    pub(super) fn name(&mut self, option: &'static str, text: &str) -> Result<(), QemuError> {
        let mut list = OptionList::parse(option, Some("guest"), text);
        for (key, kept) in [("guest", &mut self.name), ("process", &mut self.process_name)] {
            let Some(name) = list.take(key)? else { continue };
            if name.is_empty() {
                let fix = format!("write {key}=NAME or leave it out");
                return Err(QemuError::value(option, format!("{key}: the name is empty"), fix));
            }
            once(option, kept, name)?;
        }
        list.allow(&[("debug-threads", "on")])?;
        list.finish(&[], &["guest", "process", "debug-threads"])
    }

    /// Reads a `-sandbox`: what its other keys may forbid is forbidden.
    pub(super) fn sandbox(&mut self, text: &str) -> Result<(), QemuError> {
        const SANDBOX: &str = "-sandbox";
        const FORBIDDEN: [&str; 4] = ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"];
        let mut list = OptionList::parse(SANDBOX, Some("enable"), text);
        let on = list.take_bool("enable")?.unwrap_or(true);
        list.allow(&FORBIDDEN.map(|key| (key, "deny")))?;
        list.finish(&[], &["enable", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"])?;
        once(SANDBOX, &mut self.sandbox, on)
    }

    /// Joins the families to a machine.
    pub(super) fn finish(mut self) -> Result<Invocation, QemuError> {
        let ram = self.ram.unwrap_or(DEFAULT_RAM);
        let cpus = self.cpus.unwrap_or(1);
        let facts = self.machine.finish()?;
        let nodes = self.numa.finish(cpus, &mut self.backends)?;
        if let Some(id) = facts.memory_backend {
            let backend = self.backends.take("-machine", "memory-backend", &id, Kind::Ram)?;
            if !nodes.is_empty() {
                let why = "memory-backend is given and -numa says where the RAM is";
                return Err(QemuError::value("-machine", why, "leave one of them out"));
            }
            if backend.size != ram {
                let why = format!("memory-backend: {id} is not of the size of -m");
                return Err(QemuError::value("-machine", why, "make them equal"));
            }
        }
        let epc = epc::sections(&self.sgx_epc, &facts.sections, &mut self.backends, nodes.len())?;
        self.backends.finish()?;
        let networks = self.networks.finish()?;
        let serial = self.chardevs.console(self.daemonize, &QemuWording)?;
        let gdb = self.gdb.unwrap_or_default();
        let stopped = self.stopped || gdb.wait;
        if stopped && gdb.address.is_none() && self.chardevs.monitors.is_empty() {
            let why = "nothing could have the machine go on";
            return Err(QemuError::value("-S", why, "add -qmp or -gdb, or leave it out"));
        }
        let boot = BootConfig::from_options(self.kernel, self.initrd, self.append, "")?;
        let machine = MachineConfig {
            name: self.name,
            boot,
            ram,
            cpus,
            nodes,
            disks: self.drives,
            epc,
            epc_quota: None,
            epc_reserve: None,
            cpu: self.cpu.unwrap_or_default(),
            launch_key: self.launch_key,
            platform: self.platform,
            no_reboot: self.no_reboot,
            accelerator: facts.accelerator,
            translate: Translate::On,
        };
        machine.layout().map_err(QemuError::from)?;
        Ok(Invocation {
            machine,
            serial,
            monitors: self.chardevs.monitors,
            gdb: gdb.address,
            stopped,
            shares: Vec::new(),
            vsock: None,
            networks,
            sandbox: self.sandbox.unwrap_or(true),
            process_name: self.process_name,
            pidfile: self.pidfile,
            daemonize: self.daemonize,
        })
    }
}
