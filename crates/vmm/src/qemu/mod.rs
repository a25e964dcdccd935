//! `cloister qemu`: a line of QEMU's options, as its users write it.
//!
//! Options are read in their order into what each family collects, then the families are joined to
//! a [`MachineConfig`](crate::config::MachineConfig). What QEMU has and Cloister does not is refused by name; nothing is dropped.

mod chardev;
mod drive;
mod epc;
mod error;
mod help;
mod line;
mod list;
mod machine;
mod names;
mod network;
mod numa;
mod object;
mod processor;
mod size;
mod wording;

#[cfg(test)]
mod tests;

pub use error::QemuError;
pub(crate) use names::is_option;
pub(crate) use network::networks;
pub use wording::QemuWording;
pub(crate) use wording::option_of_run;

use std::ffi::OsString;

use crate::chardev::Chardev;
use crate::complaint::{Setting, Wording};
use crate::config::parse_launch_key;
use crate::invocation::Invocation;
use chardev::Debugger;
use epc::SgxEpc;
use line::{Line, once};

/// What a line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Run a machine.
    Run(Box<Invocation>),
    /// Tell which options there are.
    Help,
    /// Tell what an option takes, as QEMU does of an argument `help`.
    HelpOn(String),
    /// Tell the version.
    Version,
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
        "q35|pc|microvm[,accel=kvm|tcg|kvm:tcg][,sgx-epc.N.memdev=ID,sgx-epc.N.node=NODE]...",
        |line, text| line.machine.machine(text),
    ),
    with("M", "the same as -machine", |line, text| line.machine.machine(text)),
    with("accel", "kvm|tcg: the second is for where the first does not do", |line, text| {
        line.machine.accel(text)
    }),
    alone("enable-kvm", "the same as -accel kvm", |line| {
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
        |line, text| line.chardevs.serial("-serial", text),
    ),
    with("qmp", "unix:PATH,server=on[,wait=off]", |line, text| line.chardevs.qmp(text)),
    with("gdb", "tcp:127.0.0.1:PORT|unix:PATH,server=on[,wait=off]|none", |line, text| {
        once("-gdb", &mut line.gdb, Debugger::parse(text)?)
    }),
    alone("s", "the same as -gdb tcp::1234", |line| {
        if line.gdb.is_some() {
            let why = "it stands for -gdb tcp::1234, and the debugger has its address";
            return Err(QemuError::value("-s", why, "leave one of them out"));
        }
        once("-s", &mut line.gdb, Debugger::parse(Debugger::SHORT)?)
    }),
    alone("S", "stand at the first instruction until a monitor or debugger says go on", |line| {
        line.stopped = true;
        Ok(())
    }),
    alone("nographic", "put the console on the terminal", |line| {
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
    with(
        "netdev",
        "user|tap|stream,id=ID[,hostfwd=tcp:ADDRESS:PORT-:PORT][,ifname=NAME][,queues=N][,addr.path=SOCKET]",
        |line, text| line.networks.netdev(text),
    ),
    with(
        "device",
        "virtio-net-device,netdev=ID[,mac=ADDRESS][,host_mtu=N][,mq=on]",
        |line, text| line.networks.device(text),
    ),
    with("nic", "user|tap|stream|none: -netdev and -device in one", |line, text| {
        line.networks.nic(text)
    }),
    with("net", "none", |_, text| network::net(text)),
    alone("no-user-config", "accepted: there is no configuration file", |_| Ok(())),
    alone("no-reboot", "exit with code 2 when the guest resets", |line| {
        line.no_reboot = true;
        Ok(())
    }),
    with("name", "NAME[,process=NAME][,debug-threads=on]", |line, text| line.name("-name", text)),
    with("pidfile", "FILE", |line, text| once("-pidfile", &mut line.pidfile, text.into())),
    alone("daemonize", "run in the background once the machine is ready", |line| {
        line.daemonize = true;
        Ok(())
    }),
    with("sandbox", "on|off (default: on)", Line::sandbox),
    with("sgx-platform", "DIR: as cloister run --platform", |line, text| {
        once("-sgx-platform", &mut line.platform, text.into())
    }),
    with("sgx-launch-key", "HEX: as cloister run --launch-key", |line, text| {
        const OPTION: &str = "-sgx-launch-key";
        let key = parse_launch_key(text).map_err(|error| QemuError::refused(OPTION, error))?;
        once(OPTION, &mut line.launch_key, key)
    }),
];

/// What `-serial` names, for a command whose options `wording` names: one or none.
///
/// # Errors
///
/// [`QemuError`].
pub(crate) fn serial(
    text: Option<&str>,
    daemonize: bool,
    wording: &dyn Wording,
) -> Result<Chardev, QemuError> {
    let mut chardevs = chardev::Chardevs::default();
    let option = wording.name(Setting::Console);
    text.map(|text| chardevs.serial(option, text)).transpose()?;
    chardevs.console(daemonize, wording)
}

/// The names that `-name`, or another `option`, gives: the machine's and the process's.
///
/// # Errors
///
/// [`QemuError`].
pub(crate) fn names(
    option: &'static str,
    text: &str,
) -> Result<(Option<String>, Option<String>), QemuError> {
    let mut line = Line::default();
    line.name(option, text)?;
    Ok((line.name, line.process_name))
}

/// Reads the words after `cloister qemu`.
///
/// # Errors
///
/// [`QemuError`] for the first option that cannot be served, or for what contradicts another.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, QemuError> {
    let mut line = Line::default();
    let mut words = words.into_iter().map(|word| {
        word.into_string()
            .map_err(|word| QemuError::NotUtf8(word.to_string_lossy().escape_debug().to_string()))
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
            return Err(if is_option(name) {
                QemuError::OnlyInQemu(format!("-{name}"))
            } else {
                QemuError::NoSuchOption(word.escape_debug().to_string())
            });
        };
        match known.action {
            Action::Alone(action) => action(&mut line)?,
            Action::With(action) => {
                let argument = words.next().transpose()?;
                let argument = argument.ok_or(QemuError::NoArgument(known.name))?;
                if let Some(text) = help::of(known.name, &argument) {
                    return Ok(Request::HelpOn(text));
                }
                action(&mut line, &argument)?;
            }
        }
    }
    Ok(Request::Run(Box::new(line.finish()?)))
}

/// The options, one a line.
#[must_use]
pub fn help() -> String {
    let mut text = "Usage: cloister qemu OPTIONS, in the syntax of QEMU\n\n".to_owned();
    for known in OPTIONS {
        text += &format!("  -{:15} {}\n", known.name, known.help);
    }
    text
}
