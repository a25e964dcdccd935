//! `cloister qemu`: a line of QEMU's options, as its users write it.
//!
//! Options are read in their order into what each family collects, then the families are joined to
//! a [`MachineConfig`]. What QEMU has and Cloister does not is refused by name; nothing is dropped.

mod chardev;
mod drive;
mod epc;
mod error;
mod list;
mod machine;
mod names;
mod numa;
mod object;
mod processor;
mod size;
mod wording;

#[cfg(test)]
mod tests;

pub use error::QemuError;
pub use wording::in_options_of_qemu;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::chardev::Chardev;
use crate::config::{BootConfig, ConfigError, DiskConfig, MachineConfig, parse_launch_key};
use crate::cpu_flags::CpuConfig;
use crate::qmp::Listen;
use chardev::Chardevs;
use epc::SgxEpc;
use list::OptionList;
use machine::MachineOptions;
use numa::Numa;
use object::{Backends, Kind};

/// RAM without `-m`, in bytes, as in QEMU.
const DEFAULT_RAM: u64 = 128 << 20;

/// What a line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Run a machine.
    Run(Box<Invocation>),
    /// Tell which options there are.
    Help,
    /// Tell the version.
    Version,
}

/// A machine, and how it is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// The machine.
    pub machine: MachineConfig,
    /// What is behind its consoles.
    pub serial: Chardev,
    /// Where its QMP monitors listen.
    pub monitors: Vec<Listen>,
    /// Confine the process to the system calls it needs.
    pub sandbox: bool,
    /// The name that the process takes.
    pub process_name: Option<String>,
    /// The file that gets the process's number.
    pub pidfile: Option<PathBuf>,
    /// Go on without the terminal.
    pub daemonize: bool,
}

/// How an option is read.
enum Action {
    /// It stands alone.
    Alone(fn(&mut Line) -> Result<(), QemuError>),
    /// An argument follows.
    With(fn(&mut Line, &str) -> Result<(), QemuError>),
}

/// An option that Cloister has.
struct Known {
    /// Its name without dashes.
    name: &'static str,
    /// The argument and the meaning, for the help.
    help: &'static str,
    action: Action,
}

const fn alone(
    name: &'static str,
    help: &'static str,
    action: fn(&mut Line) -> Result<(), QemuError>,
) -> Known {
    Known { name, help, action: Action::Alone(action) }
}

const fn with(
    name: &'static str,
    help: &'static str,
    action: fn(&mut Line, &str) -> Result<(), QemuError>,
) -> Known {
    Known { name, help, action: Action::With(action) }
}

/// Every option.
const OPTIONS: &[Known] = &[
    with(
        "machine",
        "q35|pc|microvm[,accel=tcg][,sgx-epc.N.memdev=ID,sgx-epc.N.node=NODE]...",
        |line, text| line.machine.machine(text),
    ),
    with("M", "the same", |line, text| line.machine.machine(text)),
    with("accel", "tcg", |line, text| line.machine.accel(text)),
    alone("enable-kvm", "only with -accel tcg behind it", |line| {
        line.machine.enable_kvm();
        Ok(())
    }),
    with("cpu", "host|max[,+FLAG|,-FLAG|,FLAG=on|off]...", |line, text| {
        once("-cpu", &mut line.cpu, processor::cpu(text)?)
    }),
    with("smp", "N", |line, text| once("-smp", &mut line.cpus, processor::smp(text)?)),
    with("m", "SIZE", |line, text| once("-m", &mut line.ram, object::ram(text)?)),
    with(
        "object",
        "memory-backend-epc|memory-backend-ram,id=ID,size=SIZE[,prealloc=on]",
        |line, text| line.backends.add(text),
    ),
    with("sgx-epc", "id=ID,memdev=ID", |line, text| {
        line.sgx_epc.push(SgxEpc::parse(text)?);
        Ok(())
    }),
    with(
        "numa",
        "node[,nodeid=N][,cpus=N[-N]]...[,memdev=ID|,mem=SIZE] or cpu,node-id=N,core-id=N",
        |line, text| line.numa.add(text),
    ),
    with("kernel", "FILE", |line, text| once("-kernel", &mut line.kernel, text.into())),
    with("initrd", "FILE", |line, text| once("-initrd", &mut line.initrd, text.into())),
    with("append", "STRING", |line, text| once("-append", &mut line.append, text.into())),
    with("drive", "file=FILE,if=virtio[,format=raw][,readonly=on]", |line, text| {
        line.drives.push(drive::drive(text)?);
        Ok(())
    }),
    with(
        "serial",
        "stdio|mon:stdio|null|none|file:PATH|unix:PATH,server=on[,wait=off]",
        |line, text| line.chardevs.serial(text),
    ),
    with("qmp", "unix:PATH,server=on[,wait=off]", |line, text| line.chardevs.qmp(text)),
    alone("nographic", "the console is on the terminal", |line| {
        line.chardevs.nographic = true;
        Ok(())
    }),
    alone("nodefaults", "no console without -serial", |line| {
        line.chardevs.nodefaults = true;
        Ok(())
    }),
    with("display", "none", |_, text| chardev::display(text)),
    with("monitor", "none", |_, text| chardev::monitor(text)),
    with("vga", "none", |_, text| chardev::none("-vga", text)),
    with("parallel", "none", |_, text| chardev::none("-parallel", text)),
    with("nic", "none", |_, text| chardev::none("-nic", text)),
    with("net", "none", |_, text| chardev::none("-net", text)),
    alone("no-user-config", "there is no file of settings", |_| Ok(())),
    alone("no-reboot", "exit with code 2 when the guest resets", |line| {
        line.no_reboot = true;
        Ok(())
    }),
    with("name", "NAME[,process=NAME][,debug-threads=on]", Line::name),
    with("pidfile", "FILE", |line, text| once("-pidfile", &mut line.pidfile, text.into())),
    alone("daemonize", "go on without the terminal once the machine is ready", |line| {
        line.daemonize = true;
        Ok(())
    }),
    with("sandbox", "on|off, and on if it is not given", Line::sandbox),
    with("sgx-platform", "DIR: as cloister run --platform", |line, text| {
        once("-sgx-platform", &mut line.platform, text.into())
    }),
    with("sgx-launch-key", "HEX: as cloister run --launch-key", |line, text| {
        once("-sgx-launch-key", &mut line.launch_key, parse_launch_key(text)?)
    }),
];

/// What the options say, family by family, as they are read.
#[derive(Default)]
struct Line {
    machine: MachineOptions,
    cpu: Option<CpuConfig>,
    cpus: Option<u32>,
    ram: Option<u64>,
    backends: Backends,
    sgx_epc: Vec<SgxEpc>,
    numa: Numa,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    append: Option<String>,
    drives: Vec<DiskConfig>,
    chardevs: Chardevs,
    no_reboot: bool,
    name: Option<String>,
    process_name: Option<String>,
    pidfile: Option<PathBuf>,
    daemonize: bool,
    sandbox: Option<bool>,
    platform: Option<PathBuf>,
    launch_key: Option<[u8; 32]>,
}

/// Reads the words behind `cloister qemu`.
///
/// # Errors
///
/// [`QemuError`] for the first option that cannot be served, or for what contradicts another.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, QemuError> {
    let mut line = Line::default();
    let mut words = words.into_iter().map(|word| {
        word.into_string().map_err(|word| QemuError::NotUtf8(word.to_string_lossy().into_owned()))
    });
    while let Some(word) = words.next().transpose()? {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            return Err(QemuError::NotAnOption(word.escape_debug().to_string()));
        };
        match name {
            "h" | "help" => return Ok(Request::Help),
            "version" => return Ok(Request::Version),
            _ => {}
        }
        let Some(known) = OPTIONS.iter().find(|known| known.name == name) else {
            return Err(if names::is_option(name) {
                QemuError::OnlyInQemu(format!("-{name}"))
            } else {
                QemuError::NoSuchOption(word.escape_debug().to_string())
            });
        };
        match known.action {
            Action::Alone(action) => action(&mut line)?,
            Action::With(action) => {
                let argument = words.next().transpose()?;
                let argument = argument.ok_or_else(|| QemuError::NoArgument(known.name))?;
                action(&mut line, &argument)?;
            }
        }
    }
    Ok(Request::Run(Box::new(line.finish()?)))
}

/// The options, one a line.
#[must_use]
pub fn help() -> String {
    let mut text = "Usage: cloister qemu OPTIONS, as QEMU's users write them\n\n".to_owned();
    for known in OPTIONS {
        text += &format!("  -{:15} {}\n", known.name, known.help);
    }
    text
}

/// Notes the value of an option that is given once at most.
fn once<T>(option: &'static str, slot: &mut Option<T>, value: T) -> Result<(), QemuError> {
    match slot.replace(value) {
        Some(_) => Err(QemuError::Twice(option)),
        None => Ok(()),
    }
}

impl Line {
    /// Reads a `-name`.
    fn name(&mut self, text: &str) -> Result<(), QemuError> {
        const NAME: &str = "-name";
        let mut list = OptionList::parse(NAME, Some("guest"), text);
        if let Some(name) = list.take("guest")? {
            once(NAME, &mut self.name, name)?;
        }
        if let Some(name) = list.take("process")? {
            if name.contains('\0') {
                let why = "process: the name has a zero byte";
                return Err(QemuError::value(NAME, why, "leave it out"));
            }
            once(NAME, &mut self.process_name, name)?;
        }
        list.allow(&[("debug-threads", "on")])?;
        list.finish(&[], &["guest", "process", "debug-threads"])
    }

    /// Reads a `-sandbox`: what its other keys may forbid is forbidden.
    fn sandbox(&mut self, text: &str) -> Result<(), QemuError> {
        const SANDBOX: &str = "-sandbox";
        const FORBIDDEN: [&str; 4] = ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"];
        let mut list = OptionList::parse(SANDBOX, Some("enable"), text);
        let on = list.take_bool("enable")?.unwrap_or(true);
        list.allow(&FORBIDDEN.map(|key| (key, "deny")))?;
        list.finish(&[], &["enable", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"])?;
        once(SANDBOX, &mut self.sandbox, on)
    }

    /// Joins the families to a machine.
    fn finish(mut self) -> Result<Invocation, QemuError> {
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
        let serial = self.chardevs.console(self.daemonize)?;
        let boot = match (self.kernel, self.initrd, self.append) {
            (Some(kernel), initrd, append) => {
                BootConfig::Kernel { kernel, initrd, cmdline: append.unwrap_or_default() }
            }
            (None, Some(_), _) => return Err(ConfigError::WithoutKernel("--initrd").into()),
            (None, None, Some(_)) => return Err(ConfigError::WithoutKernel("--append").into()),
            (None, None, None) if self.drives.is_empty() => return Err(QemuError::NothingToBoot),
            (None, None, None) => BootConfig::Disk,
        };
        let machine = MachineConfig {
            name: self.name,
            boot,
            ram,
            cpus,
            nodes,
            disks: self.drives,
            epc,
            cpu: self.cpu.unwrap_or_default(),
            launch_key: self.launch_key,
            platform: self.platform,
            no_reboot: self.no_reboot,
        };
        machine.layout().map_err(QemuError::from)?;
        Ok(Invocation {
            machine,
            serial,
            monitors: self.chardevs.monitors,
            sandbox: self.sandbox.unwrap_or(true),
            process_name: self.process_name,
            pidfile: self.pidfile,
            daemonize: self.daemonize,
        })
    }
}
