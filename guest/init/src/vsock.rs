//! Streams to the host and from it.
#![expect(unsafe_code, reason = "std has no sockets of vsock(7)")]

use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use guest_vsock::connect;

/// The host's port that sends back what it is sent, one where nobody listens, and the guest's port.
const ECHO: u32 = 52;
const SILENT: u32 = 54;
const OWN: u32 = 53;

/// Sends back all that comes from the host, to the end of it, on a stream that is begun here and on one
/// that the host begins.
pub(crate) fn echo(_: &[&str]) -> std::result::Result<(), String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: Error| format!("{what}: {error}")
    };
    match connect(SILENT) {
        Ok(_) => println!("vsock: port {SILENT} answers"),
        Err(error) => println!("vsock: port {SILENT} does not: {error}"),
    }
    let stream = connect(ECHO).map_err(failed("cannot connect"))?;
    let bytes = send_back(stream).map_err(failed("the stream to the host"))?;
    println!("vsock: sent {bytes} bytes back");
    let listener = listen(OWN).map_err(failed("cannot listen"))?;
    println!("vsock: listening at {OWN}");
    let stream = accept(&listener).map_err(failed("cannot accept"))?;
    let bytes = send_back(stream).map_err(failed("the stream from the host"))?;
    println!("vsock: sent {bytes} bytes back");
    Ok(())
}

fn send_back(stream: OwnedFd) -> Result<usize> {
    let mut stream = File::from(stream);
    let mut piece = vec![0; 48 << 10];
    let mut bytes = 0;
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return linger(&stream).map(|()| bytes);
        }
        stream.write_all(&piece[..count])?;
        bytes += count;
    }
}

/// Has the end of the stream wait until the host has read all of it: the machine may end then.
fn linger(stream: &File) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 60 };
    let size = size_of_val(&linger) as libc::socklen_t;
    // SAFETY: the kernel reads a structure of that size.
    let status = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    };
    if status == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

fn own_address(port: u32) -> libc::sockaddr_vm {
    // SAFETY: all zeros are a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    address
}

fn listen(port: u32) -> Result<OwnedFd> {
    let (socket, address) = (
        // SAFETY: it takes integers alone.
        owned(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) })?,
        own_address(port),
    );
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads an address of that size.
    let status = unsafe {
        match libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) {
            0 => libc::listen(socket.as_raw_fd(), 1),
            failed => failed,
        }
    };
    if status == 0 { Ok(socket) } else { Err(Error::last_os_error()) }
}

fn accept(listener: &OwnedFd) -> Result<OwnedFd> {
    let none = std::ptr::null_mut();
    // SAFETY: without an address the kernel writes none.
    owned(unsafe { libc::accept(listener.as_raw_fd(), none, std::ptr::null_mut()) })
}

fn owned(descriptor: i32) -> Result<OwnedFd> {
    if descriptor < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
