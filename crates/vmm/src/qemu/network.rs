//! Networks: `-netdev` with `-device`, `-nic`, and the option of other commands that says both at once.

use super::QemuError;
use super::list::OptionList;
use crate::complaint::Setting;
use crate::config::is_identifier;
use crate::net::{
    Forward, Link, NetConfig, NetConfigError, UserNetwork, parse_interface, parse_mac, parse_mtu,
    parse_path, parse_queues,
};

const NETDEV: &str = "-netdev";
const DEVICE: &str = "-device";
const NIC: &str = "-nic";
const NET: &str = "-net";

const NETDEV_EXAMPLE: &str = "-netdev user,id=net0";
const DEVICE_EXAMPLE: &str = "-device virtio-net-device,netdev=net0";
/// What QEMU calls the device where it has a bus of its own, and where it does not matter.
pub(super) const MODEL: &str = "virtio-net-device";
const MODELS: [&str; 3] = [MODEL, "virtio-net", "virtio"];

/// Backends that QEMU has besides.
const BACKENDS: [&str; 13] = [
    "af-xdp",
    "bridge",
    "dgram",
    "hubport",
    "l2tpv3",
    "netmap",
    "passt",
    "socket",
    "vde",
    "vhost-user",
    "vhost-vdpa",
    "vmnet-bridged",
    "vmnet-shared",
];
/// Keys of backends and devices that only QEMU has.
const IN_QEMU: &[&str] = &[
    "addr.*",
    "bootfile",
    "bootindex",
    "br",
    "bus",
    "csum",
    "ctrl_*",
    "dhcpstart",
    "dns",
    "dnssearch",
    "domainname",
    "downscript",
    "fd",
    "fds",
    "gso",
    "guest_*",
    "guestfwd",
    "helper",
    "host",
    "host_*",
    "hostname",
    "ipv4",
    "ipv6",
    "ipv6-*",
    "mrg_rxbuf",
    "net",
    "packed",
    "poll-us",
    "reconnect",
    "reconnect-ms",
    "restrict",
    "rx_queue_size",
    "script",
    "smb",
    "smbserver",
    "sndbuf",
    "speed",
    "status",
    "tftp",
    "tftp-server-name",
    "tx",
    "tx_queue_size",
    "vectors",
    "vhost",
    "vhostfd",
    "vhostfds",
    "vhostforce",
    "vnet_hdr",
];

/// What the options say, as they are read.
#[derive(Default, Debug)]
pub(super) struct Networks {
    backends: Vec<Backend>,
    /// In the order of the devices.
    devices: Vec<Device>,
}

/// A `-netdev`.
#[derive(Debug)]
struct Backend {
    id: String,
    link: Link,
}

/// A device, with the backend that it names or has.
#[derive(Debug)]
struct Device {
    option: &'static str,
    netdev: String,
    /// What a `-nic` says of the backend.
    link: Option<Link>,
    /// It has as many pairs of queues as its backend.
    multiqueue: bool,
    settings: Settings,
}

/// What there is to say of a device itself.
#[derive(Debug)]
struct Settings {
    mac: Option<cloister_devices::virtio::Mac>,
    mtu: Option<u16>,
}

impl Networks {
    /// Reads a `-netdev`.
    pub(super) fn netdev(&mut self, text: &str) -> Result<(), QemuError> {
        let mut list = OptionList::parse(NETDEV, Some("type"), text);
        let kind = list.require("type", NETDEV_EXAMPLE)?;
        let id = identifier(NETDEV, list.require("id", NETDEV_EXAMPLE)?)?;
        let link = backend(NETDEV, &kind, &mut list).and_then(|(link, keys)| {
            list.finish(IN_QEMU, &[&["type", "id"], keys].concat()).map(|()| link)
        });
        let link = link.map_err(|error| error.of_network(&id))?;
        if self.backends.iter().any(|other| other.id == id) {
            return Err(id_twice(NETDEV, &id));
        }
        self.backends.push(Backend { id, link });
        Ok(())
    }

    /// Reads a `-device`. There are no others to add.
    pub(super) fn device(&mut self, text: &str) -> Result<(), QemuError> {
        let mut list = OptionList::parse(DEVICE, Some("driver"), text);
        let driver = list.require("driver", DEVICE_EXAMPLE)?;
        if !MODELS[..2].contains(&driver.as_str()) {
            let why = format!("Cloister adds no {driver:?}");
            let fix = format!("write {MODEL}, or leave it out: -device help lists what there is");
            return Err(QemuError::value(DEVICE, why, fix));
        }
        let netdev = list.require("netdev", DEVICE_EXAMPLE)?;
        let settings = settings(DEVICE, "host_mtu", &mut list)?;
        let multiqueue = list.take_bool("mq")?.unwrap_or(false);
        // A name that nothing here can refer to.
        list.take("id")?;
        list.finish(IN_QEMU, &["driver", "netdev", "mac", "host_mtu", "mq", "id"])?;
        self.devices.push(Device { option: DEVICE, netdev, link: None, multiqueue, settings });
        Ok(())
    }

    /// Reads a `-nic`: a backend and its device at once, or that there is none but those that other options
    /// ask for, as it is here anyhow.
    pub(super) fn nic(&mut self, text: &str) -> Result<(), QemuError> {
        let mut list = OptionList::parse(NIC, Some("type"), text);
        let kind = list.require("type", "-nic user,model=virtio")?;
        if kind == "none" {
            return list.finish(&[], &["type"]);
        }
        let netdev = match list.take("id")? {
            Some(id) => identifier(NIC, id)?,
            None => format!("nic{}", self.devices.len()),
        };
        let (settings, link) =
            Self::nic_of(&kind, &mut list).map_err(|error| error.of_network(&netdev))?;
        let link = Some(link);
        self.devices.push(Device { option: NIC, netdev, link, multiqueue: false, settings });
        Ok(())
    }

    /// Reads what a `-nic` says of its device and of its backend.
    fn nic_of(kind: &str, list: &mut OptionList) -> Result<(Settings, Link), QemuError> {
        let model = list.take("model")?;
        if let Some(model) = model.filter(|model| !MODELS.contains(&model.as_str())) {
            let why = format!("model: Cloister has no {model:?}");
            return Err(QemuError::value(NIC, why, format!("write model={MODEL}")));
        }
        let settings = settings(NIC, "host_mtu", list)?;
        let (link, keys) = backend(NIC, kind, list)?;
        list.finish(IN_QEMU, &[&["type", "model", "id", "mac"], keys].concat())?;
        Ok((settings, link))
    }

    /// Joins each device with its backend: each backend has one.
    pub(super) fn finish(mut self) -> Result<Vec<NetConfig>, QemuError> {
        let mut networks: Vec<NetConfig> = Vec::with_capacity(self.devices.len());
        for device in self.devices {
            let Device { option, netdev: id, link, multiqueue, settings } = device;
            if networks.iter().any(|other| other.id == id) {
                let why = format!("the network {id} has a device already");
                return Err(QemuError::value(option, why, "name another, or leave one out"));
            }
            let at = self.backends.iter().position(|backend| backend.id == id);
            let link = match (link, at) {
                (Some(_), Some(_)) => return Err(id_twice(option, &id)),
                (Some(link), None) => link,
                (None, Some(at)) => self.backends.remove(at).link,
                (None, None) => {
                    let why = format!("there is no network {id:?}");
                    return Err(QemuError::value(option, why, format!("add -netdev user,id={id}")));
                }
            };
            if let Link::Tap { queues: 2.., .. } = link
                && !multiqueue
            {
                // QEMU would leave all but one of them unused.
                let why = format!("queues: the device of {id} has one pair of them");
                let fix = match option {
                    NIC => format!(
                        "use -netdev with -device {MODEL},netdev=ID,mq=on, or leave queues out"
                    ),
                    _ => format!("add mq=on to -device {MODEL},netdev={id}, or leave queues out"),
                };
                return Err(QemuError::value(option, why, fix));
            }
            let Settings { mac, mtu } = settings;
            let setting = if option == NIC { Setting::Nic } else { Setting::Network };
            networks.push(NetConfig { setting, id, mac, mtu, link });
        }
        if let Some(Backend { id, .. }) = self.backends.first() {
            let why = format!("nothing uses {id}");
            return Err(QemuError::value(NETDEV, why, format!("add -device {MODEL},netdev={id}")));
        }
        Ok(networks)
    }
}

/// Reads a `-net`: QEMU's older form, of which only that there is none is taken.
pub(super) fn net(text: &str) -> Result<(), QemuError> {
    match text {
        "none" => Ok(()),
        _ => {
            let why = format!("Cloister does not do {text:?}");
            Err(QemuError::value(NET, why, "write -nic, or -netdev and -device"))
        }
    }
}

/// Reads the values of another command's `option`: `user`, `tap=NAME` or `stream=SOCKET`, and what goes with it.
pub(crate) fn networks(
    option: &'static str,
    texts: &[String],
) -> Result<Vec<NetConfig>, QemuError> {
    let mut networks: Vec<NetConfig> = Vec::with_capacity(texts.len());
    for text in texts {
        let mut list = OptionList::parse(option, None, text);
        let id = match list.take("id")? {
            Some(id) => identifier(option, id)?,
            None => format!("net{}", networks.len()),
        };
        let network = network(option, text, &id, list).map_err(|error| match texts.len() {
            1 => error,
            _ => error.of_network(&id),
        })?;
        if networks.iter().any(|other| other.id == network.id) {
            return Err(id_twice(option, &network.id));
        }
        networks.push(network);
    }
    Ok(networks)
}

fn network(
    option: &'static str,
    text: &str,
    id: &str,
    mut list: OptionList,
) -> Result<NetConfig, QemuError> {
    const COMMON: &[&str] = &["id", "mac", "mtu"];
    let refused = |error: NetConfigError| QemuError::refused(option, error);
    let first = text.split([',', '=']).next().unwrap_or_default();
    let (link, keys): (_, &[&str]) = match first {
        // A word alone.
        "user" if list.take_bool("user")? == Some(true) => user(option, &mut list)?,
        "tap" => {
            let name = list.require("tap", "tap=NAME")?;
            let name = parse_interface(name).map_err(refused)?;
            (Link::Tap { name, queues: queues(option, &mut list)? }, &["tap", "queues"])
        }
        "stream" => {
            one_queue(option, first, &mut list)?;
            let path = list.require("stream", "stream=SOCKET")?;
            let server = list.take_bool("server")?.unwrap_or(false);
            (
                Link::Stream { path: parse_path(path).map_err(refused)?, server },
                &["stream", "server"],
            )
        }
        _ => {
            let why = format!("{text:?} is not a network");
            return Err(QemuError::value(option, why, "write user, tap=NAME or stream=SOCKET"));
        }
    };
    let Settings { mac, mtu } = settings(option, "mtu", &mut list)?;
    list.finish(&[], &[keys, COMMON].concat())?;
    Ok(NetConfig { setting: Setting::Network, id: id.to_owned(), mac, mtu, link })
}

/// Reads what a backend of this kind is told, and names its keys.
fn backend(
    option: &'static str,
    kind: &str,
    list: &mut OptionList,
) -> Result<(Link, &'static [&'static str]), QemuError> {
    let refused = |error: NetConfigError| QemuError::refused(option, error);
    match kind {
        "user" => user(option, list),
        "tap" => {
            let name = list.require("ifname", "tap,ifname=NAME,script=no,downscript=no")?;
            list.allow(&[("script", "no"), ("downscript", "no"), ("vhost", "off")])?;
            let name = parse_interface(name).map_err(refused)?;
            let link = Link::Tap { name, queues: queues(option, list)? };
            Ok((link, &["ifname", "script", "downscript", "vhost", "queues"]))
        }
        "stream" => {
            one_queue(option, kind, list)?;
            const EXAMPLE: &str = "stream,addr.type=unix,addr.path=SOCKET";
            let family = list.require("addr.type", EXAMPLE)?;
            if family != "unix" {
                let why = format!("addr.type: Cloister does not do {family:?}");
                return Err(QemuError::value(option, why, "write addr.type=unix"));
            }
            let path = parse_path(list.require("addr.path", EXAMPLE)?).map_err(refused)?;
            let server = list.take_bool("server")?.unwrap_or(false);
            Ok((Link::Stream { path, server }, &["addr.type", "addr.path", "server"]))
        }
        other => {
            let why = match BACKENDS.contains(&other) {
                true => format!("QEMU has {other} and Cloister does not"),
                false => format!("there is no {other:?}"),
            };
            Err(QemuError::value(option, why, "write user, tap or stream"))
        }
    }
}

/// Reads how many pairs of queues a tap has.
fn queues(option: &'static str, list: &mut OptionList) -> Result<usize, QemuError> {
    let refused = |error: NetConfigError| QemuError::refused(option, format!("queues: {error}"));
    list.take("queues")?.map_or(Ok(1), |text| parse_queues(&text).map_err(refused))
}

/// Refuses a number of queues where there is one pair.
fn one_queue(option: &'static str, kind: &str, list: &mut OptionList) -> Result<(), QemuError> {
    if list.take("queues")?.is_none() {
        return Ok(());
    }
    let why = format!("queues: there is one pair of them with {kind}");
    Err(QemuError::value(option, why, "leave queues out, or use tap"))
}

/// Reads what the host's network is told.
fn user(
    option: &'static str,
    list: &mut OptionList,
) -> Result<(Link, &'static [&'static str]), QemuError> {
    one_queue(option, "user", list)?;
    let forwards = list.take_all("hostfwd")?;
    let forwards = forwards.iter().map(|text| Forward::parse(text)).collect::<Result<Vec<_>, _>>();
    let forwards =
        forwards.map_err(|error| QemuError::refused(option, format!("hostfwd: {error}")))?;
    let taken = |at: usize, forward: &Forward| {
        forwards[..at].iter().any(|other: &Forward| {
            (other.udp, other.address, other.host_port)
                == (forward.udp, forward.address, forward.host_port)
        })
    };
    if let Some((_, twice)) = forwards.iter().enumerate().find(|&(at, forward)| taken(at, forward))
    {
        let why = format!("hostfwd: the host's port {} is given twice", twice.host_port);
        return Err(QemuError::value(option, why, "leave one out"));
    }
    let host_loopback = list.take_bool("map-gw")?.unwrap_or(false);
    let user = UserNetwork { forwards, host_loopback, other_names: false };
    Ok((Link::User(user), &["hostfwd", "map-gw"]))
}

/// Reads what there is to say of a device; `mtu` is the key of its MTU.
fn settings(
    option: &'static str,
    mtu: &'static str,
    list: &mut OptionList,
) -> Result<Settings, QemuError> {
    let refused = |key: &'static str| {
        move |error: NetConfigError| QemuError::refused(option, format!("{key}: {error}"))
    };
    let mac = list.take("mac")?.map(|text| parse_mac(&text)).transpose();
    let bytes = list.take(mtu)?.map(|text| parse_mtu(&text)).transpose();
    Ok(Settings { mac: mac.map_err(refused("mac"))?, mtu: bytes.map_err(refused(mtu))? })
}

fn identifier(option: &'static str, id: String) -> Result<String, QemuError> {
    if is_identifier(&id) {
        return Ok(id);
    }
    let why = format!("{id:?} is not an id");
    Err(QemuError::value(option, why, "write a letter, then letters, digits, -, _ or ."))
}

fn id_twice(option: &'static str, id: &str) -> QemuError {
    let why = format!("the id {id} is given to two networks");
    QemuError::value(option, why, "give each its own")
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const RUN: &str = "--net";

    fn run(texts: &[&str]) -> Result<Vec<NetConfig>, String> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        networks(RUN, &texts).map_err(|error| error.to_string())
    }

    fn qemu(words: &[(&str, &str)]) -> Result<Vec<NetConfig>, String> {
        let mut networks = Networks::default();
        let read = words.iter().try_for_each(|&(option, text)| match option {
            "netdev" => networks.netdev(text),
            "device" => networks.device(text),
            "nic" => networks.nic(text),
            _ => net(text),
        });
        read.and_then(|()| networks.finish()).map_err(|error| error.to_string())
    }

    fn forwarding() -> UserNetwork {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let forward = Forward { udp: false, address, host_port: 2222, guest_port: 22 };
        UserNetwork { forwards: vec![forward], ..UserNetwork::default() }
    }

    #[test]
    fn each_form_says_the_same_networks() {
        let network = |id: &str, mac, mtu, link| {
            let setting = if id == "nic1" { Setting::Nic } else { Setting::Network };
            NetConfig { setting, id: id.to_owned(), mac, mtu, link }
        };
        let mac = Some([0x52, 0x54, 0, 1, 2, 3]);
        let tap = |name: &str, queues| Link::Tap { name: name.to_owned(), queues };
        let stream = |server| Link::Stream { path: "/run/a,b".into(), server };

        assert_eq!(
            run(&[
                "user,hostfwd=tcp:127.0.0.1:2222-:22",
                "tap=tap0,id=lan,mac=52:54:00:01:02:03",
                "tap=tap1,queues=8",
                "stream=/run/a,,b,server=on,mtu=9000",
                "stream=/run/a,,b",
            ]),
            Ok(vec![
                network("net0", None, None, Link::User(forwarding())),
                network("lan", mac, None, tap("tap0", 1)),
                network("net2", None, None, tap("tap1", 8)),
                network("net3", None, Some(9000), stream(true)),
                network("net4", None, None, stream(false)),
            ])
        );
        assert_eq!(
            qemu(&[
                ("netdev", "stream,id=s,addr.type=unix,addr.path=/run/a,,b,server=on"),
                ("netdev", "user,id=u,hostfwd=tcp::2222-:22"),
                ("device", "virtio-net-device,netdev=u,mac=52:54:00:01:02:03,mq=on"),
                ("nic", "tap,ifname=tap0,script=no,downscript=no,model=virtio"),
                ("device", "virtio-net,netdev=s,host_mtu=9000,id=nic"),
                ("device", "virtio-net-device,netdev=q,mq=on"),
                ("netdev", "tap,id=q,ifname=tap1,script=no,queues=4,vhost=off"),
            ]),
            Ok(vec![
                network("u", mac, None, Link::User(forwarding())),
                network("nic1", None, None, tap("tap0", 1)),
                network("s", None, Some(9000), stream(true)),
                network("q", None, None, tap("tap1", 4)),
            ])
        );
        assert_eq!(qemu(&[("nic", "none"), ("net", "none")]), Ok(vec![]));
        // As in QEMU, where it only means that there is none by default.
        let user = network("nic0", None, None, Link::User(UserNetwork::default()));
        let user = NetConfig { setting: Setting::Nic, ..user };
        assert_eq!(qemu(&[("nic", "user"), ("nic", "none")]), Ok(vec![user.clone()]));
        assert_eq!(qemu(&[("nic", "none"), ("nic", "user")]), Ok(vec![user]));
    }

    #[test]
    fn what_is_wrong_with_one_of_several_networks_names_it() {
        for (found, line) in [
            (
                run(&["user", "user,mtu=1"]),
                r#"--net: mtu: "1" is not an MTU: write 68 to 65535 (network net1)"#,
            ),
            (
                run(&["tap=t,id=lan,x=1", "user"]),
                "--net: there is no key x: the keys are tap, queues, id, mac, mtu (network lan)",
            ),
            (
                qemu(&[("netdev", "user,id=a"), ("netdev", "tap,id=b")]),
                "-netdev: the key ifname is missing: write tap,ifname=NAME,script=no,downscript=no \
                 (network b)",
            ),
            (
                qemu(&[("nic", "user"), ("nic", "user,mac=1")]),
                r#"-nic: mac: "1" is not the address of a device: write one such as 52:54:00:12:34:57 (network nic1)"#,
            ),
        ] {
            assert_eq!(found, Err(line.to_owned()));
        }
    }

    #[test]
    fn wrong_values_are_one_line_that_names_the_option_and_the_fix() {
        for (texts, line) in [
            (&[""][..], r#"--net: "" is not a network: write user, tap=NAME or stream=SOCKET"#),
            (&["none"], r#"--net: "none" is not a network: write user, tap=NAME or stream=SOCKET"#),
            (
                &["user=on,x"],
                "--net: there is no key x: the keys are hostfwd, map-gw, id, mac, mtu",
            ),
            (&["user=off"], r#"--net: "user=off" is not a network: write user,"#),
            (&["tap"], "--net: the key tap has no value: write tap=VALUE"),
            (&["tap="], r#"--net: "" is not the name of an interface: write 1 to 15 letters"#),
            (&["tap=t,server=on"], "--net: there is no key server: the keys are tap, queues, id,"),
            (&["tap=t,queues=0"], r#"--net: queues: "0" is not a number of queues: write 1 to 8"#),
            (&["tap=t,queues=9"], r#"--net: queues: "9" is not a number of queues: write 1 to 8"#),
            (&["tap=t,queues=x"], r#"--net: queues: "x" is not a number of queues: write 1 to 8"#),
            (&["tap=t,queues"], "--net: the key queues has no value: write queues=VALUE"),
            (&["tap=t,queues=2,queues=2"], "--net: the key queues is given twice: leave one out"),
            (
                &["user,queues=2"],
                "--net: queues: there is one pair of them with user: leave queues out, or use tap",
            ),
            (
                &["stream=s,queues=1"],
                "--net: queues: there is one pair of them with stream: leave queues out, or use",
            ),
            (&["stream="], "--net: the path has 0 bytes and a socket's has 1 to 107: name another"),
            (&["stream=s,server=x"], r#"--net: server is on or off, not "x""#),
            (
                &["user,hostfwd=22"],
                r#"--net: hostfwd: "22" is not a forwarded port: write tcp:127"#,
            ),
            (
                &["user,hostfwd=tcp::1-:2,hostfwd=tcp:127.0.0.1:1-:3"],
                "--net: hostfwd: the host's port 1 is given twice: leave one out",
            ),
            (
                &["user,mac=1"],
                r#"--net: mac: "1" is not the address of a device: write one such as"#,
            ),
            (&["user,mtu=1"], r#"--net: mtu: "1" is not an MTU: write 68 to 65535"#),
            (&["user,id=1"], r#"--net: "1" is not an id: write a letter, then letters"#),
            (&["user,user"], "--net: the key user is given twice: leave one out"),
            (
                &["user,tap=t"],
                "--net: there is no key tap: the keys are hostfwd, map-gw, id, mac, mtu",
            ),
            (&["user,id=a", "tap=t,id=a"], "--net: the id a is given to two networks: give each"),
        ] {
            let error = run(texts).unwrap_err();
            assert!(error.starts_with(line) && error.lines().count() == 1, "{error}");
        }
        for (words, line) in [
            (
                &[("netdev", "user")][..],
                "-netdev: the key id is missing: write -netdev user,id=net0",
            ),
            (&[("netdev", "id=a")], "-netdev: the key type is missing: write -netdev user,id=net0"),
            (
                &[("netdev", "passt,id=a")],
                "-netdev: QEMU has passt and Cloister does not: write user",
            ),
            (&[("netdev", "x,id=a")], r#"-netdev: there is no "x": write user, tap or stream"#),
            (&[("netdev", "user,id=a")], "-netdev: nothing uses a: add -device virtio-net-device,"),
            (
                &[("netdev", "user,id=a,smb=/")],
                "-netdev: QEMU has the key smb and Cloister does not",
            ),
            (
                &[("netdev", "user,id=a,x=1")],
                "-netdev: there is no key x: the keys are type, id, h",
            ),
            (&[("netdev", "tap,id=a")], "-netdev: the key ifname is missing: write tap,ifname="),
            (
                &[("netdev", "tap,id=a,ifname=t,script=/x")],
                "-netdev: Cloister does not do script=/x: write script=no or leave it out",
            ),
            (
                &[("netdev", "tap,id=a,ifname=t,queues=9")],
                r#"-netdev: queues: "9" is not a number of queues: write 1 to 8"#,
            ),
            (
                &[("netdev", "user,id=a,queues=2")],
                "-netdev: queues: there is one pair of them with user: leave queues out, or use",
            ),
            (
                &[
                    ("netdev", "tap,id=a,ifname=t,queues=2"),
                    ("device", "virtio-net-device,netdev=a,mq=off"),
                ],
                "-device: queues: the device of a has one pair of them: add mq=on to -device \
                 virtio-net-device,netdev=a, or leave queues out",
            ),
            (
                &[("nic", "tap,ifname=t,queues=2")],
                "-nic: queues: the device of nic0 has one pair of them: use -netdev with -device",
            ),
            (
                &[("netdev", "user,id=a"), ("device", "virtio-net-device,netdev=a,mq=2")],
                r#"-device: mq is on or off, not "2""#,
            ),
            (
                &[("netdev", "stream,id=a,addr.type=inet")],
                r#"-netdev: addr.type: Cloister does not do "inet": write addr.type=unix"#,
            ),
            (
                &[("device", "e1000")],
                r#"-device: Cloister adds no "e1000": write virtio-net-device"#,
            ),
            (
                &[("device", "virtio-net-device")],
                "-device: the key netdev is missing: write -device",
            ),
            (
                &[("device", "virtio-net-device,netdev=a")],
                r#"-device: there is no network "a": add -netdev user,id=a"#,
            ),
            (
                &[("netdev", "user,id=a"), ("netdev", "user,id=a")],
                "-netdev: the id a is given to two networks: give each its own",
            ),
            (
                &[
                    ("netdev", "user,id=a"),
                    ("device", "virtio-net-device,netdev=a"),
                    ("device", "virtio-net-device,netdev=a"),
                ],
                "-device: the network a has a device already: name another, or leave one out",
            ),
            (
                &[("nic", "user,model=e1000")],
                r#"-nic: model: Cloister has no "e1000": write model="#,
            ),
            (&[("nic", "none,x=1")], "-nic: there is no key x: the keys are type"),
            (
                &[("net", "user")],
                r#"-net: Cloister does not do "user": write -nic, or -netdev and"#,
            ),
        ] {
            let error = qemu(words).unwrap_err();
            assert!(error.starts_with(line) && error.lines().count() == 1, "{error}");
        }
    }
}
