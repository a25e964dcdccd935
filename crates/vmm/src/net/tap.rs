//! A network device on an interface of the host, by tap (Linux, Documentation/networking/tuntap.rst). Packets
//! have the header of virtio, so the host does what it asks for.

#![expect(unsafe_code, reason = "ioctl(2) has no safe form for these requests")]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem::zeroed;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
        "there is no interface {name}: make it (ip tuntap add dev {name} mode {mode} user NAME), and bring it up"
    )]
    Missing {
        /// Its name.
        name: String,
        /// What it is to be.
        mode: &'static str,
    },
    /// It may not be had.
    #[error(
        "the interface {name} is another user's: make it this user's (ip tuntap add dev {name} mode {mode} user NAME)"
    )]
    Denied {
        /// Its name.
        name: String,
        /// What it is to be.
        mode: &'static str,
    },
    /// A process has it.
    #[error("a process has the interface {0}: end it, or name another")]
    InUse(String),
    /// It is one of another kind.
    #[error("the interface {0} is not a tap: make one (ip tuntap add dev NAME mode tap)")]
    Kind(String),
    /// It takes one queue, and several are asked for.
    #[error(
        "the interface {0} has one queue: make it anew with several (ip tuntap add dev {0} mode tap multi_queue user NAME), or leave queues out"
    )]
    OneQueue(String),
    /// It takes several queues, and one is asked for.
    #[error(
        "the interface {0} has several queues: write how many (queues=2), or make it anew without multi_queue (ip tuntap add dev {0} mode tap user NAME)"
    )]
    SeveralQueues(String),
    /// Anything else.
    #[error("cannot have the interface {name}: {reason}: name another")]
    Host {
        /// Its name.
        name: String,
        /// What the host said.
        reason: io::Error,
    },
}

impl TapError {
    /// Why the interface `name` cannot be had with one queue or `several`.
    fn of(name: &str, several: bool, reason: io::Error) -> Self {
        let mode = if several { "tap multi_queue" } else { "tap" };
        match reason.raw_os_error() {
            Some(libc::ENODEV) => Self::Missing { name: name.to_owned(), mode },
            Some(libc::EPERM | libc::EACCES) => Self::Denied { name: name.to_owned(), mode },
            Some(libc::EBUSY) => Self::InUse(name.to_owned()),
            Some(libc::EINVAL) => Self::Kind(name.to_owned()),
            _ => Self::Host { name: name.to_owned(), reason },
        }
    }
}

/// A queue of an interface.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
    /// What the network is called in messages.
    id: String,
    /// The interface has not been removed: what one of its queues finds counts for all.
    up: Arc<AtomicBool>,
    /// The interface gives packets to the queue.
    attached: bool,
}

impl Tap {
    /// Has the interface `name`, which is there, for the network `id`, with so many queues, of which the first is
    /// attached. Returns its MTU too.
    pub(super) fn open(id: &str, name: &str, queues: usize) -> Result<(Vec<Self>, u16), TapError> {
        // Looked at first: an administrator would be given a new interface of this name, which is on no
        // network.
        let several = queues > 1;
        let failed = |reason| TapError::of(name, several, reason);
        let mtu = mtu(name).map_err(failed)?;
        let up = Arc::new(AtomicBool::new(true));
        let mut taps = Vec::with_capacity(queues);
        for at in 0..queues {
            let file = open_queue(name, several)?;
            let mut tap = Self { file, id: id.to_owned(), up: up.clone(), attached: true };
            if at == 0 {
                // Whatever the process before this one asked for.
                tap.offload(GuestOffloads::default());
            } else {
                tap.attach(false).map_err(failed)?;
            }
            taps.push(tap);
        }
        Ok((taps, mtu))
    }

    /// Has the interface give packets to the queue, or to others alone.
    fn attach(&mut self, on: bool) -> io::Result<()> {
        let flag = if on { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        let request = request("", flag);
        // SAFETY: the kernel reads a request of its own type, which outlives the call.
        check(unsafe {
            libc::ioctl(self.file.as_raw_fd(), libc::TUNSETQUEUE, &raw const request)
        })?;
        self.attached = on;
        Ok(())
    }

    /// Whether the error says that the interface is gone; it is then, for good.
    fn lose(&self, error: &io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV))
            && self.up.swap(false, Ordering::Relaxed)
        {
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

    fn enable(&mut self, on: bool) -> bool {
        if on == self.attached {
            return true;
        }
        // No more than that: a guest may ask as often as it likes.
        let attached = self.attach(on);
        if let Err(error) = &attached {
            tracing::debug!(network = self.id, on, %error, "the interface leaves a queue as it was");
        }
        attached.is_ok()
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
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
        self.is_up().then(|| self.file.as_fd())
    }
}

/// Opens a queue of an interface, which takes one or `several`.
fn open_queue(name: &str, several: bool) -> Result<File, TapError> {
    let failed = |reason| TapError::of(name, several, reason);
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(DEVICE).map_err(TapError::Device)?;
    set_interface(&file, name, several).map_err(|reason| match failed(reason) {
        // The kernel does not say whether it is the number of queues; as the other kind it is no mistake.
        TapError::Kind(name) => match set_interface(&file, &name, !several) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => TapError::Kind(name),
            _ if several => TapError::OneQueue(name),
            _ => TapError::SeveralQueues(name),
        },
        other => other,
    })?;
    let header = c_int::try_from(NET_HEADER).unwrap_or(c_int::MAX);
    // SAFETY: the kernel reads an integer, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header) })
        .map_err(failed)?;
    Ok(file)
}

/// Makes the file a queue of an interface, which takes one or `several`.
fn set_interface(file: &File, name: &str, several: bool) -> io::Result<()> {
    let mut request = request(name, FLAGS | if several { libc::IFF_MULTI_QUEUE } else { 0 });
    // SAFETY: the kernel reads and writes a request of its own type, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// The MTU of an interface.
fn mtu(name: &str) -> io::Result<u16> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut request = request(name, 0);
    // SAFETY: the kernel reads and writes a request of its own type, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) })?;
    // SAFETY: it is this member that the kernel writes for this request.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// A request about an interface, with these flags.
fn request(name: &str, flags: c_int) -> ifreq {
    // SAFETY: all zeros are a valid request.
    let mut request: ifreq = unsafe { zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = c_short::try_from(flags).unwrap_or(c_short::MAX);
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
        let missing = Tap::open("net0", "cloister-none", 1).unwrap_err();
        let other = Tap::open("net0", "lo", 2).unwrap_err();

        assert!(matches!(missing, TapError::Missing { .. }), "{missing}");
        // Who may not have any does not learn what it is.
        assert!(
            matches!(other, TapError::Kind(_) | TapError::Denied { .. } | TapError::Device(_)),
            "{other}"
        );
    }
}
