//! The networks that the guest's network devices are on: what is asked for, and what is opened for it before
//! the machine is confined.

mod passt;
mod tap;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cloister_devices::virtio::{MAX_QUEUE_PAIRS, Mac, NetPeer, StreamPeer};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;

pub use passt::{Passt, PasstError};
pub use tap::TapError;

use crate::complaint::{Complaint, Setting};
use crate::own_file::OwnFile;
use crate::qmp::{Listen, MAX_PATH, ServeError, Socket};

/// The network of `user`: the guest's address, how many bits of it are the network's, the gateway's address
/// and that of the name server, as with QEMU's.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Bits of [`GUEST`] that are the network's.
pub const PREFIX: u8 = 24;
/// The gateway of [`GUEST`].
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server of [`GUEST`].
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Bytes of the largest packet of `user`: the largest IPv4 packet, rounded to words, less an Ethernet header.
const USER_MTU: u16 = 65520;
/// The smallest MTU of IPv4 (RFC 791), and the largest that a packet can have.
const MTUS: std::ops::RangeInclusive<u16> = 68..=65535;
/// The address of a machine's first device in QEMU. Others count on from there.
const FIRST_MAC: Mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// Bytes of an interface's name at most: IFNAMSIZ less its NUL.
const MAX_INTERFACE: usize = 15;

/// A network device, and what it is connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetConfig {
    /// What it was set by.
    pub setting: Setting,
    /// What it is called in messages.
    pub id: String,
    /// Its address, if it is to have a certain one.
    pub mac: Option<Mac>,
    /// Bytes of the largest packet, if its network does not say.
    pub mtu: Option<u16>,
    /// What it is connected to.
    pub link: Link,
}

impl NetConfig {
    /// The socket that is made for its peers, if there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match &self.link {
            Link::Stream { path, server: true } => Some(path),
            _ => None,
        }
    }
}

/// What a network device is connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Link {
    /// The host's network, by a process that opens the guest's connections as its own.
    User(UserNetwork),
    /// An interface of the host.
    Tap {
        /// Its name.
        name: String,
        /// Pairs of queues that the device has on it.
        queues: usize,
    },
    /// Whoever is at the other end of a Unix socket.
    Stream {
        /// The socket's file.
        path: PathBuf,
        /// It is made, and peers connect to it.
        server: bool,
    },
}

/// What the guest has of the host's network.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UserNetwork {
    /// Ports of the host that lead to the guest's.
    pub forwards: Vec<Forward>,
    /// The gateway's address is the host's own 127.0.0.1.
    pub host_loopback: bool,
    /// The guest has been told of name servers by another, and there is none at [`NAME_SERVER`].
    pub other_names: bool,
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// UDP, and else TCP.
    pub udp: bool,
    /// The address of the host that it is a port of.
    pub address: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The guest's port.
    pub guest_port: u16,
}

/// Why a value that concerns a network cannot be used. Each message says what to write.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NetConfigError {
    /// Not an Ethernet address of one device.
    #[error("{0:?} is not the address of a device: write one such as 52:54:00:12:34:57")]
    Mac(String),
    /// Not a number of bytes that a packet can have.
    #[error("{0:?} is not an MTU: write {min} to {max}", min = MTUS.start(), max = MTUS.end())]
    Mtu(String),
    /// Not two ports.
    #[error("{0:?} is not a forwarded port: write tcp:127.0.0.1:2222-:22")]
    Forward(String),
    /// A forwarded port of another guest.
    #[error("{0:?} leads to another address than the guest's: leave it out, or write {GUEST}")]
    ForwardTo(String),
    /// Not the name of an interface.
    #[error("{0:?} is not the name of an interface: write 1 to {MAX_INTERFACE} letters and digits")]
    Interface(String),
    /// Not a number of queues that a device can have.
    #[error("{0:?} is not a number of queues: write 1 to {MAX_QUEUE_PAIRS}")]
    Queues(String),
    /// No path, or one that no socket can have.
    #[error("the path has {0} bytes and a socket's has 1 to {MAX_PATH}: name another")]
    Path(usize),
}

/// Reads an Ethernet address: six bytes in hexadecimal with colons between.
///
/// # Errors
///
/// [`NetConfigError::Mac`], also for the address of a group or of nobody.
pub fn parse_mac(text: &str) -> Result<Mac, NetConfigError> {
    let byte = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let mac = bytes.and_then(|bytes| Mac::try_from(bytes).ok());
    mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6])
        .ok_or_else(|| NetConfigError::Mac(text.to_owned()))
}

/// Reads an MTU.
///
/// # Errors
///
/// [`NetConfigError::Mtu`].
pub fn parse_mtu(text: &str) -> Result<u16, NetConfigError> {
    let mtu = text.parse().ok().filter(|mtu| MTUS.contains(mtu));
    mtu.ok_or_else(|| NetConfigError::Mtu(text.to_owned()))
}

/// Reads the name of an interface.
///
/// # Errors
///
/// [`NetConfigError::Interface`].
pub fn parse_interface(name: String) -> Result<String, NetConfigError> {
    let possible = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
    let named = (1..=MAX_INTERFACE).contains(&name.len()) && !matches!(&*name, "." | "..");
    if named && name.chars().all(possible) {
        Ok(name)
    } else {
        Err(NetConfigError::Interface(name))
    }
}

/// Reads how many pairs of queues a device has.
///
/// # Errors
///
/// [`NetConfigError::Queues`].
pub fn parse_queues(text: &str) -> Result<usize, NetConfigError> {
    let queues = text.parse().ok().filter(|queues| (1..=MAX_QUEUE_PAIRS).contains(queues));
    queues.ok_or_else(|| NetConfigError::Queues(text.to_owned()))
}

/// Reads the path of a socket.
///
/// # Errors
///
/// [`NetConfigError::Path`].
pub fn parse_path(path: String) -> Result<PathBuf, NetConfigError> {
    match path.len() {
        1..=MAX_PATH => Ok(path.into()),
        other => Err(NetConfigError::Path(other)),
    }
}

impl Forward {
    /// Reads `[tcp|udp]:[ADDRESS]:PORT-[GUEST]:PORT`, as QEMU has it. Without an address the host's port is
    /// one of 127.0.0.1, where QEMU takes all addresses of the host.
    ///
    /// # Errors
    ///
    /// [`NetConfigError::Forward`] and [`NetConfigError::ForwardTo`].
    pub fn parse(text: &str) -> Result<Self, NetConfigError> {
        let wrong = || NetConfigError::Forward(text.to_owned());
        let (protocol, rest) = text.split_once(':').ok_or_else(wrong)?;
        let udp = match protocol {
            "tcp" | "" => false,
            "udp" => true,
            _ => return Err(wrong()),
        };
        let (host, guest) = rest.rsplit_once('-').ok_or_else(wrong)?;
        let split = |side: &str| {
            let (address, port) = side.rsplit_once(':')?;
            Some((address.to_owned(), port.parse().ok().filter(|&port: &u16| port != 0)?))
        };
        let (address, host_port) = split(host).ok_or_else(wrong)?;
        let (to, guest_port) = split(guest).ok_or_else(wrong)?;
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match bare.unwrap_or(&address) {
            "" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            other => other.parse().map_err(|_| wrong())?,
        };
        if !to.is_empty() && to.parse() != Ok(GUEST) {
            return Err(NetConfigError::ForwardTo(text.to_owned()));
        }
        Ok(Self { udp, address, host_port, guest_port })
    }
}

/// Why a network cannot be had.
#[derive(Debug, Error)]
pub enum NetError {
    /// The process that is the network of `user` does not run.
    #[error(transparent)]
    Passt(#[from] PasstError),
    /// The interface cannot be had.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Nobody listens at the socket.
    #[error(
        "cannot connect to {path}: {reason}: start its other end first, or have this one make it, with server=on",
        path = .path.display()
    )]
    Connect {
        /// The socket's file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// The socket cannot be made.
    #[error(transparent)]
    Listen(#[from] ServeError),
    /// The host has no random numbers.
    #[error("the host gives no random numbers: {0}")]
    Random(io::Error),
}

impl NetError {
    /// Which setting is at fault, why, and what to do. One of several networks is named.
    fn complaint(&self, config: &NetConfig, several: bool) -> Complaint {
        let why = if several { format!("{}: {self}", config.id) } else { self.to_string() };
        Complaint { setting: Some(config.setting), why: why.into(), fix: None }
    }
}

/// A network that is open.
#[derive(Debug)]
pub struct Network {
    mac: Mac,
    mtu: Option<u16>,
    /// One for each pair of queues.
    peers: Vec<Arc<Mutex<dyn NetPeer>>>,
    /// The descriptors of the interface's queues, if it is one.
    taps: Vec<RawFd>,
    /// The socket that peers connect to, if it was made.
    _file: Option<OwnFile>,
}

impl Network {
    /// Opens the networks of a machine. Processes that they need go on beside it and end with it; `passt` is
    /// the program for those of `user`.
    ///
    /// # Errors
    ///
    /// What is wrong with the first that cannot be had.
    pub fn open_all(configs: &[NetConfig], passt: &Passt) -> Result<Vec<Self>, Complaint> {
        let mut networks: Vec<Self> = Vec::with_capacity(configs.len());
        for config in configs {
            let mac = match config.mac {
                Some(mac) => Ok(mac),
                None => free_mac(config, configs, &networks),
            };
            let network = mac.and_then(|mac| Self::open(config, mac, passt));
            let refused = |error: NetError| error.complaint(config, configs.len() > 1);
            networks.push(network.map_err(refused)?);
        }
        Ok(networks)
    }

    fn open(config: &NetConfig, mac: Mac, passt: &Passt) -> Result<Self, NetError> {
        let id = config.id.as_str();
        let new = |mtu: Option<u16>, peers: Vec<Arc<Mutex<dyn NetPeer>>>| Self {
            mac,
            mtu: config.mtu.or(mtu),
            peers,
            taps: Vec::new(),
            _file: None,
        };
        match &config.link {
            Link::User(user) => {
                let mtu = config.mtu.unwrap_or(USER_MTU);
                let peer = StreamPeer::connected(id, passt.start(user, mac, mtu)?);
                Ok(new(Some(mtu), vec![Arc::new(Mutex::new(peer))]))
            }
            Link::Tap { name, queues } => {
                let (queues, mtu) = tap::Tap::open(id, name, *queues)?;
                let taps = queues.iter().map(|tap| tap.as_raw_fd()).collect();
                let peer = |tap| Arc::new(Mutex::new(tap)) as Arc<Mutex<dyn NetPeer>>;
                let network = new(Some(mtu), queues.into_iter().map(peer).collect());
                Ok(Self { taps, ..network })
            }
            Link::Stream { path, server: false } => {
                let refused = |reason| NetError::Connect { path: path.clone(), reason };
                let peer = StreamPeer::connected(id, dial(path).map_err(refused)?);
                Ok(new(None, vec![Arc::new(Mutex::new(peer))]))
            }
            Link::Stream { path, server: true } => {
                let socket = Socket::bind(&Listen { path: path.clone(), wait: false })?;
                let peer = StreamPeer::listening(id, socket.listener.into());
                let network = new(None, vec![Arc::new(Mutex::new(peer))]);
                Ok(Self { _file: socket.file, ..network })
            }
        }
    }

    /// The device's address.
    pub(crate) const fn mac(&self) -> Mac {
        self.mac
    }

    /// Bytes of the largest packet, if they are known.
    pub(crate) const fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// What each pair of queues of the device is connected to.
    pub(crate) fn peers(&self) -> Vec<Arc<Mutex<dyn NetPeer>>> {
        self.peers.clone()
    }

    /// The descriptors of the queues of the host's interface, if it is one.
    pub(crate) fn taps(&self) -> &[RawFd] {
        &self.taps
    }
}

/// An address for a device that is to have none in particular: QEMU's for one that is alone on its network,
/// and else one that no other machine has, since two of one address do not hear each other.
fn free_mac(
    config: &NetConfig,
    configs: &[NetConfig],
    networks: &[Network],
) -> Result<Mac, NetError> {
    let is_free = |mac: &Mac| {
        configs.iter().all(|other| other.mac.as_ref() != Some(mac))
            && networks.iter().all(|other| other.mac != *mac)
    };
    let [a, b, c, d, e, f] = FIRST_MAC;
    let mut counted = (f..=u8::MAX).map(|f| [a, b, c, d, e, f]);
    if matches!(config.link, Link::User(_))
        && let Some(mac) = counted.find(is_free)
    {
        return Ok(mac);
    }
    loop {
        let mut random = [0; 3];
        getrandom(&mut random, GetRandomFlags::empty())
            .map_err(|error| NetError::Random(error.into()))?;
        let mac = [a, b, c, random[0], random[1], random[2]];
        if is_free(&mac) {
            return Ok(mac);
        }
    }
}

/// Connects to a socket.
fn dial(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_port_is_as_in_qemu_or_an_error_that_says_what_to_write() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (text, udp, address, ports) in [
            ("tcp:127.0.0.1:2222-:22", false, local, (2222, 22)),
            (":: 1-:1".replace(' ', "").as_str(), false, local, (1, 1)),
            ("udp::5353-10.0.2.15:53", true, local, (5353, 53)),
            ("tcp:[::1]:80-:80", false, "::1".parse().unwrap(), (80, 80)),
            ("tcp:0.0.0.0:80-:8080", false, "0.0.0.0".parse().unwrap(), (80, 8080)),
        ] {
            let (host_port, guest_port) = ports;
            let expected = Forward { udp, address, host_port, guest_port };
            assert_eq!(Forward::parse(text), Ok(expected), "{text}");
        }
        for text in
            ["", "tcp", "2222-:22", "sctp::1-:1", "tcp::0-:1", "tcp::1-1", "tcp::1:1", "tcp:x:1-:1"]
        {
            let line = Forward::parse(text).unwrap_err().to_string();
            let expected =
                format!("{text:?} is not a forwarded port: write tcp:127.0.0.1:2222-:22");
            assert_eq!(line, expected);
        }
        assert_eq!(
            Forward::parse("tcp::1-10.0.2.16:1").unwrap_err().to_string(),
            "\"tcp::1-10.0.2.16:1\" leads to another address than the guest's: leave it out, or \
             write 10.0.2.15"
        );
    }

    #[test]
    fn an_address_is_that_of_one_device() {
        assert_eq!(parse_mac("52:54:00:aB:00:ff"), Ok([0x52, 0x54, 0, 0xab, 0, 0xff]));
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:5",
            "52:54:00:12:34:+6",
            "53:54:00:12:34:56",
            "00:00:00:00:00:00",
        ] {
            let line = parse_mac(text).unwrap_err().to_string();
            assert!(line.ends_with("write one such as 52:54:00:12:34:57"), "{line}");
        }
    }

    #[test]
    fn names_of_interfaces_and_mtus_are_those_that_linux_takes() {
        for name in ["tap0", "br-lan.7"] {
            assert_eq!(parse_interface(name.into()).as_deref(), Ok(name));
        }
        for name in ["", ".", "a/b", "a b", "sixteen-letters-"] {
            assert!(parse_interface(name.into()).is_err(), "{name}");
        }
        assert_eq!((parse_mtu("68"), parse_mtu("65535")), (Ok(68), Ok(65535)));
        for text in ["", "67", "65536", "x"] {
            assert_eq!(
                parse_mtu(text).unwrap_err().to_string(),
                format!("{text:?} is not an MTU: write 68 to 65535")
            );
        }
    }

    #[test]
    fn devices_have_addresses_of_their_own() {
        let of = |link: Link, mac| NetConfig {
            setting: Setting::Network,
            id: "net0".into(),
            mac,
            mtu: None,
            link,
        };
        let user = || Link::User(UserNetwork::default());
        let taken = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
        let tap = Link::Tap { name: "t".into(), queues: 1 };
        let configs = [of(user(), None), of(user(), Some(taken)), of(tap, None)];

        let alone = free_mac(&configs[0], &configs[..1], &[]).unwrap();
        let second = free_mac(&configs[0], &configs, &[]).unwrap();
        let random = [0, 1].map(|_| free_mac(&configs[2], &configs, &[]).unwrap());

        assert_eq!((alone, second), (taken, [0x52, 0x54, 0x00, 0x12, 0x34, 0x57]));
        assert_ne!(random[0], random[1]);
        assert!(random.iter().all(|mac| mac.starts_with(&taken[..3])));
    }
}
