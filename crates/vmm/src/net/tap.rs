//! A network device on an interface of the host, by tap (Linux, Documentation/networking/tuntap.rst). Packets
//! have the header of virtio, so the host does what it asks for.

#![expect(unsafe_code, reason = "ioctl(2) has no safe form for these requests")]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem::zeroed;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

use cloister_devices::virtio::{GuestOffloads, NET_HEADER, NetPeer};
use libc::{c_int, c_short, c_uint, c_ulong, ifreq};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use thiserror::Error;

/// The device that interfaces are had by.
const DEVICE: &str = "/dev/net/tun";
/// Ethernet frames, with a virtio header and no other.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Why an interface cannot be had. Each message says what to do.
#[derive(Debug, Error)]
pub enum TapError {
    /// The host has no such device.
    #[error("cannot open {DEVICE}: {0}: load the module tun, or use stream")]
    Device(io::Error),
    /// There is no such interface, or it is none of Ethernet's.
    #[error(
        "there is no interface {0}: make it (ip tuntap add dev {0} mode tap user NAME), and bring it up"
    )]
    Missing(String),
    /// It may not be had.
    #[error(
        "the interface {0} is another user's: make it this user's (ip tuntap add dev {0} mode tap user NAME)"
    )]
    Denied(String),
    /// A process has it.
    #[error("a process has the interface {0}: end it, or name another")]
    InUse(String),
    /// It is one of another kind.
    #[error(
        "the interface {0} is not a tap of one queue: make one (ip tuntap add dev NAME mode tap)"
    )]
    Kind(String),
    /// Anything else.
    #[error("cannot have the interface {name}: {reason}: name another")]
    Host {
        /// Its name.
        name: String,
        /// What the host said.
        reason: io::Error,
    },
}

/// An interface.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
    /// What the network is called in messages.
    id: String,
    /// It has not been removed.
    up: bool,
}

impl Tap {
    /// Has the interface `name`, which is there, for the network `id`. Returns its MTU too.
    pub(super) fn open(id: &str, name: &str) -> Result<(Self, u16), TapError> {
        let failed = |reason: io::Error| match reason.raw_os_error() {
            Some(libc::ENODEV) => TapError::Missing(name.to_owned()),
            Some(libc::EPERM | libc::EACCES) => TapError::Denied(name.to_owned()),
            Some(libc::EBUSY) => TapError::InUse(name.to_owned()),
            Some(libc::EINVAL) => TapError::Kind(name.to_owned()),
            _ => TapError::Host { name: name.to_owned(), reason },
        };
        // Looked at first: an administrator would be given a new interface of this name, which is on no
        // network.
        let mtu = mtu(name).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(DEVICE).map_err(TapError::Device)?;
        let mut request = request(name);
        request.ifr_ifru.ifru_flags = c_short::try_from(FLAGS).unwrap_or(c_short::MAX);
        // SAFETY: the kernel reads and writes a request of its own type, which outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
            .map_err(failed)?;
        let header = c_int::try_from(NET_HEADER).unwrap_or(c_int::MAX);
        // SAFETY: the kernel reads an integer, which outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header) })
            .map_err(failed)?;
        let mut tap = Self { file, id: id.to_owned(), up: true };
        // Whatever the process before this one asked for.
        tap.offload(GuestOffloads::default());
        Ok((tap, mtu))
    }

    /// Whether the error says that the interface is gone; it is then, for good.
    fn lose(&mut self, error: &io::Error) {
        if self.up && matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV)) {
            self.up = false;
            tracing::warn!("network {}: the link is down: the interface is gone", self.id);
        }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl NetPeer for Tap {
    fn reads_headers(&self) -> bool {
        true
    }

    fn offload(&mut self, guest: GuestOffloads) {
        let mut wanted: c_uint = 0;
        for (on, flag) in [
            (guest.checksum, libc::TUN_F_CSUM),
            (guest.tso4, libc::TUN_F_TSO4),
            (guest.tso6, libc::TUN_F_TSO6),
        ] {
            wanted |= if on { flag } else { 0 };
        }
        // SAFETY: it takes integers alone.
        let set = check(unsafe {
            libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(wanted))
        });
        // Refused, it gives finished frames, which do as well.
        if let Err(error) = set {
            tracing::warn!(network = self.id, %error, "the interface takes no offloads");
        }
    }

    fn is_up(&self) -> bool {
        self.up
    }

    fn send(&mut self, packet: &mut [u8]) -> bool {
        loop {
            return match self.file.write(packet) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                // Dropped: the interface is down (EIO), or the header asks for what makes no sense.
                Err(error) => {
                    self.lose(&error);
                    true
                }
                Ok(_) => true,
            };
        }
    }

    fn receive(&mut self, packet: &mut [u8]) -> Option<usize> {
        loop {
            match self.file.read(packet) {
                Ok(len) if len > NET_HEADER => return Some(len),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(&error);
                    return None;
                }
            }
        }
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.up.then(|| self.file.as_fd())
    }
}

/// The MTU of an interface.
fn mtu(name: &str) -> io::Result<u16> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = request(name);
    // SAFETY: the kernel reads and writes a request of its own type, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) })?;
    // SAFETY: it is this member that the kernel writes for this request.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// A request about an interface.
fn request(name: &str) -> ifreq {
    // SAFETY: all zeros are a valid request.
    let mut request: ifreq = unsafe { zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn check(status: c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_that_cannot_be_had_are_refused_with_what_to_do() {
        let missing = Tap::open("net0", "cloister-none").unwrap_err();
        let other = Tap::open("net0", "lo").unwrap_err();

        assert!(matches!(missing, TapError::Missing(_)), "{missing}");
        // Who may not have any does not learn what it is.
        assert!(
            matches!(other, TapError::Kind(_) | TapError::Denied(_) | TapError::Device(_)),
            "{other}"
        );
    }
}
