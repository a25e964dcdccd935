//! Network devices whose addresses the host says: set by rtnetlink(7), since there is no DHCP client.

use std::fs;
use std::io::{Error, ErrorKind, Result};

use crate::settings::Network;
use crate::{doing, system};

/// Where the kernel lists interfaces, each with a link to its device.
const INTERFACES: &str = "/sys/class/net";
/// Bytes of a message's header and of an error's number, and to what attributes are filled up.
const HEADER: usize = 16;
const ALIGN: usize = 4;

/// Sets the network devices up that the host gave addresses for.
pub(crate) fn set_up(networks: &[Network]) -> std::result::Result<(), String> {
    if networks.is_empty() {
        return Ok(());
    }
    let interfaces = doing("list the network devices", interfaces())?;
    for network in networks {
        let missing = || format!("there is no network device {}", network.index);
        let &interface = interfaces.get(network.index as usize).ok_or_else(missing)?;
        doing("set the network's address", configure(interface, network))?;
    }
    Ok(())
}

/// The numbers of the interfaces of virtio devices, in the order of their slots.
fn interfaces() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(INTERFACES)? {
        let path = entry?.path();
        // `device` leads to virtioN. What has none is no device's: `lo`.
        let Ok(device) = fs::read_link(path.join("device")) else { continue };
        let number = device.file_name().and_then(|name| name.to_str()?.strip_prefix("virtio"));
        let Some(slot) = number.and_then(|number| number.parse::<u32>().ok()) else { continue };
        let index = fs::read_to_string(path.join("ifindex"))?;
        found.push((slot, index.trim().parse().map_err(|_| ErrorKind::InvalidData)?));
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, index)| index).collect())
}

/// Brings an interface up with its address, and sends by its gateway what is for elsewhere.
fn configure(interface: u32, network: &Network) -> Result<()> {
    let socket = system::route_socket()?;
    let index = interface.to_ne_bytes();
    let send = |message: Message| -> Result<()> {
        let answer = socket.ask(&message.finish())?;
        // The error of the request, as a negative number; zero is none.
        let number = answer.get(HEADER..HEADER + 4).ok_or(ErrorKind::InvalidData)?;
        let number = i32::from_ne_bytes(number.try_into().map_err(|_| ErrorKind::InvalidData)?);
        if number == 0 { Ok(()) } else { Err(Error::from_raw_os_error(-number)) }
    };
    let [family, prefix] = [libc::AF_INET as u8, network.prefix];

    // struct ifaddrmsg: family, prefix length, flags, scope, interface.
    let create = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut message = Message::new(libc::RTM_NEWADDR, create);
    message.put(&[family, prefix, 0, libc::RT_SCOPE_UNIVERSE]).put(&index);
    message.attribute(libc::IFA_LOCAL, &network.address.octets());
    message.attribute(libc::IFA_ADDRESS, &network.address.octets());
    send(message)?;

    // struct ifinfomsg: family, padding, type, interface, flags, which flags change.
    let up = (libc::IFF_UP as u32).to_ne_bytes();
    let mut message = Message::new(libc::RTM_NEWLINK, 0);
    message.put(&[0; 4]).put(&index).put(&up).put(&up);
    send(message)?;

    // struct rtmsg: family, prefix lengths of destination and source, TOS, table, protocol, scope, type,
    // flags.
    let mut message = Message::new(libc::RTM_NEWROUTE, create);
    message.put(&[family, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC]);
    message.put(&[libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0]);
    message.attribute(libc::RTA_GATEWAY, &network.gateway.octets());
    message.attribute(libc::RTA_OIF, &index);
    send(message)
}

/// A request of rtnetlink(7), which is answered with an error's number.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32) -> Self {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&len);
        self.0
    }
}
