//! Streams from a guest to its host, of vsock(7).
#![expect(unsafe_code, reason = "std has no sockets of vsock(7)")]

use std::io::{Error, Result};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A stream to a port of the host.
///
/// # Errors
/// The kernel's own: it has no vsock, or nobody listens there.
pub fn connect(port: u32) -> Result<OwnedFd> {
    // SAFETY: it takes integers alone.
    let socket = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeros are a valid address.
    let mut address: libc::sockaddr_vm = unsafe { zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_HOST;
    address.svm_port = port;
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads an address of that size.
    let status = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if status < 0 { Err(Error::last_os_error()) } else { Ok(socket) }
}
