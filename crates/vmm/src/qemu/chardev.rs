//! Back ends of character devices: `-serial`, `-qmp`, `-monitor`, `-display`, `-nographic`.

use super::QemuError;
use super::list::OptionList;
use crate::chardev::Chardev;
use crate::complaint::{Setting, Wording};
use crate::gdb::Address;
use crate::qmp::Listen;

const QMP: &str = "-qmp";
const GDB: &str = "-gdb";
const MONITOR: &str = "-monitor";
const DISPLAY: &str = "-display";

/// Backends that QEMU has besides.
const BACKENDS: [&str; 15] = [
    "braille",
    "chardev",
    "con",
    "dbus",
    "fdset",
    "msmouse",
    "parport",
    "pipe",
    "pty",
    "spicevmc",
    "tcp",
    "telnet",
    "udp",
    "vc",
    "websocket",
];
/// Displays that QEMU has besides.
const DISPLAYS: [&str; 9] =
    ["cocoa", "curses", "dbus", "default", "egl-headless", "gtk", "sdl", "spice-app", "vnc"];
/// Keys of a socket that only QEMU has.
const SOCKET_IN_QEMU: &[&str] = &[
    "abstract",
    "fd",
    "ipv4",
    "ipv6",
    "nodelay",
    "reconnect",
    "reconnect-ms",
    "telnet",
    "tight",
    "tls-authz",
    "tls-creds",
    "websocket",
];

/// What the options say, as they are read.
#[derive(Default, Debug)]
pub(super) struct Chardevs {
    pub(super) serial: Option<Chardev>,
    pub(super) monitors: Vec<Listen>,
    pub(super) nographic: bool,
    pub(super) nodefaults: bool,
}

impl Chardevs {
    /// Reads a `-serial`, which may be called another `option`.
    pub(super) fn serial(&mut self, option: &'static str, text: &str) -> Result<(), QemuError> {
        let backend = match text.split_once(':') {
            _ if matches!(text, "stdio" | "mon:stdio") => Chardev::Stdio,
            _ if matches!(text, "null" | "none") => Chardev::Null,
            Some(("file", "")) => {
                return Err(QemuError::value(
                    option,
                    "file: the name is missing",
                    "write file:PATH",
                ));
            }
            Some(("file", path)) => Chardev::File(path.into()),
            Some(("unix", rest)) => Chardev::Unix(listen(option, rest)?),
            _ => {
                let fix = "write stdio, mon:stdio, null, none, file:PATH or \
                            unix:PATH,server=on,wait=off";
                return Err(refuse_backend(option, text, fix));
            }
        };
        if self.serial.replace(backend).is_some() {
            let why = "there is a second one and the machine has one port";
            return Err(QemuError::value(option, why, "leave one out"));
        }
        Ok(())
    }

    /// Reads a `-qmp`.
    pub(super) fn qmp(&mut self, text: &str) -> Result<(), QemuError> {
        let Some(rest) = text.strip_prefix("unix:") else {
            return Err(refuse_backend(QMP, text, "write unix:PATH,server=on,wait=off"));
        };
        self.monitors.push(listen(QMP, rest)?);
        Ok(())
    }

    /// The console of the machine. Without a word of it, it is on the terminal: there is no window.
    /// `wording` names the options.
    pub(super) fn console(
        &self,
        daemonize: bool,
        wording: &dyn Wording,
    ) -> Result<Chardev, QemuError> {
        let daemon = wording.name(Setting::Daemon);
        if daemonize && self.nographic {
            let why = format!("it puts the console on the terminal, which {daemon} leaves");
            return Err(QemuError::value("-nographic", why, "write -display none"));
        }
        match &self.serial {
            Some(Chardev::Stdio) if daemonize => {
                let why = format!("stdio is the terminal, which {daemon} leaves");
                let fix = "write file:PATH, unix:PATH,server=on,wait=off or null";
                Err(QemuError::value(wording.name(Setting::Console), why, fix))
            }
            Some(chardev) => Ok(chardev.clone()),
            None if daemonize || self.nodefaults => Ok(Chardev::Null),
            None => Ok(Chardev::Stdio),
        }
    }
}

/// What `-gdb` says.
#[derive(Default, Debug)]
pub(super) struct Debugger {
    pub(super) address: Option<Address>,
    /// The machine waits for it.
    pub(super) wait: bool,
}

impl Debugger {
    /// What `-s` stands for.
    pub(super) const SHORT: &str = "tcp::1234";

    /// Reads a `-gdb`.
    pub(super) fn parse(text: &str) -> Result<Self, QemuError> {
        if text == "none" {
            return Ok(Self::default());
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            let Listen { path, wait } = listen(GDB, rest)?;
            let address = Some(Address::Unix(Listen { path, wait: false }));
            return Ok(Self { address, wait });
        }
        let Some(rest) = text.strip_prefix("tcp:") else {
            let fix = "write tcp:127.0.0.1:PORT, unix:PATH,server=on,wait=off or none";
            return Err(refuse_backend(GDB, text, fix));
        };
        let (address, options) = rest.split_once(',').unwrap_or((rest, ""));
        let address = Address::tcp(address).map_err(|error| QemuError::refused(GDB, error))?;
        let mut list = OptionList::parse(GDB, None, options);
        list.allow(&[("server", "on"), ("nodelay", "on")])?;
        // QEMU does not wait here.
        let wait = list.take_bool("wait")?.unwrap_or(false);
        list.finish(SOCKET_IN_QEMU, &["server", "wait", "nodelay"])?;
        Ok(Self { address: Some(address), wait })
    }
}

/// Reads a `-monitor`: there is none for people.
pub(super) fn monitor(text: &str) -> Result<(), QemuError> {
    match text {
        "none" | "null" => Ok(()),
        _ => {
            let why = format!("{text:?}: Cloister has QMP and no monitor for people");
            Err(QemuError::value(MONITOR, why, "write none, and perhaps -qmp"))
        }
    }
}

/// Reads a `-display`: there is none.
pub(super) fn display(text: &str) -> Result<(), QemuError> {
    let name = text.split([',', '=']).next().unwrap_or_default();
    let why = match name {
        "none" if text == "none" => return Ok(()),
        name if DISPLAYS.contains(&name) => format!("QEMU has {name} and Cloister does not"),
        _ => format!("there is no {text:?}"),
    };
    Err(QemuError::value(DISPLAY, why, "write none or -nographic"))
}

/// Reads an option whose only value here is that there is none of it.
pub(super) fn none(option: &'static str, text: &str) -> Result<(), QemuError> {
    match text {
        "none" => Ok(()),
        _ => Err(QemuError::value(
            option,
            format!("Cloister does not do {text:?}"),
            "write none or leave it out",
        )),
    }
}

fn refuse_backend(option: &'static str, text: &str, fix: &str) -> QemuError {
    let name = text.split([':', ',']).next().unwrap_or_default();
    let is_device = text.starts_with("/dev/");
    let why = if is_device || BACKENDS.contains(&name) || matches!(name, "file" | "mon" | "stdio") {
        let name = if is_device { text } else { name };
        format!("QEMU has {} here and Cloister does not", name.escape_debug())
    } else {
        format!("there is no {text:?}")
    };
    QemuError::value(option, why, fix)
}

/// Reads what follows `unix:`.
fn listen(option: &'static str, text: &str) -> Result<Listen, QemuError> {
    let mut list = OptionList::parse(option, Some("path"), text);
    let path = list.require("path", "unix:PATH,server=on,wait=off")?;
    if path.is_empty() {
        let why = "unix: the path is missing";
        return Err(QemuError::value(option, why, "write unix:PATH,server=on,wait=off"));
    }
    if list.take_bool("server")? != Some(true) {
        let why = "unix: QEMU connects to a server here and Cloister does not";
        return Err(QemuError::value(option, why, "add server=on"));
    }
    // QEMU waits for a client unless it is told not to.
    let wait = list.take_bool("wait")?.unwrap_or(true);
    list.finish(SOCKET_IN_QEMU, &["path", "server", "wait"])?;
    Listen::new(path, wait).map_err(|error| QemuError::refused(option, format!("unix: {error}")))
}
