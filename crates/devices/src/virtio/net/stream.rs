//! A peer on a stream socket, in the form that QEMU's `-netdev stream`, passt and gvproxy speak: each frame
//! after its length, in 4 bytes, big endian.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use super::header::NET_HEADER;
use super::peer::NetPeer;
use super::{MAX_FRAME, MAX_PACKET};

/// Bytes of a frame's length.
const LENGTH: usize = 4;
/// Bytes that are read at a time: several frames.
const INPUT: usize = 4 * MAX_PACKET;
/// Bytes that the socket is to hold of what is sent. The host grants what it likes.
const SEND_BUFFER: usize = 1 << 20;

/// A peer on a stream socket.
#[derive(Debug)]
pub struct StreamPeer {
    /// What it is called in messages.
    name: String,
    /// The connection, while there is one.
    socket: Option<OwnedFd>,
    /// Where peers connect, one after another, if they do.
    listener: Option<OwnedFd>,
    /// What was read, of which the frames before `taken` are gone, up to `filled`.
    input: Box<[u8]>,
    taken: usize,
    filled: usize,
    /// The rest of a frame of which the socket has the beginning.
    rest: Vec<u8>,
    /// Whether the peer takes nothing more. What it sent before may still have to be read.
    deaf: bool,
}

impl StreamPeer {
    /// The peer at the other end of `socket`, called `name` in messages. When it is gone, the link is down for
    /// good.
    #[must_use]
    pub fn connected(name: impl Into<String>, socket: OwnedFd) -> Self {
        // A small buffer makes the link slow, and works.
        let _ = set_socket_send_buffer_size(&socket, SEND_BUFFER);
        Self { socket: Some(socket), ..Self::new(name.into(), None) }
    }

    /// The peer that connects to `listener`, a socket that does not block, and when that is gone the next one.
    #[must_use]
    pub fn listening(name: impl Into<String>, listener: OwnedFd) -> Self {
        Self::new(name.into(), Some(listener))
    }

    fn new(name: String, listener: Option<OwnedFd>) -> Self {
        Self {
            name,
            socket: None,
            listener,
            input: vec![0; INPUT].into(),
            taken: 0,
            filled: 0,
            rest: Vec::new(),
            deaf: false,
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        // Its buffers stay as the host makes them: the thread that serves devices may not change them.
        // Err: nobody is there any more, or the process may open no more files.
        if let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC) {
            tracing::info!(link = self.name, "a peer is connected");
            self.socket = Some(socket);
            self.deaf = false;
        }
    }

    /// Ends the connection: bytes of a broken stream mean nothing.
    fn hang_up(&mut self, why: &dyn std::fmt::Display) {
        self.socket = None;
        self.rest.clear();
        (self.taken, self.filled) = (0, 0);
        match self.listener {
            Some(_) => tracing::info!(link = self.name, %why, "the peer is gone"),
            None => tracing::warn!("network {}: the link is down: {why}", self.name),
        }
    }

    /// The next whole frame that was read, as a range of the input.
    fn next_frame(&mut self) -> Result<Option<std::ops::Range<usize>>, TooLong> {
        let unread = &self.input[self.taken..self.filled];
        let Some((length, after)) = unread.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let len = usize::try_from(length).ok().filter(|&len| len <= MAX_FRAME);
        let len = len.ok_or(TooLong(length))?;
        if after.len() < len {
            return Ok(None);
        }
        let start = self.taken + LENGTH;
        self.taken = start + len;
        Ok(Some(start..start + len))
    }

    /// Reads more. Returns whether there was any.
    fn read(&mut self) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        self.input.copy_within(self.taken..self.filled, 0);
        (self.taken, self.filled) = (0, self.filled - self.taken);
        loop {
            return match recv(socket, &mut self.input[self.filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, _)) => {
                    self.filled += count;
                    Ok(true)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(false),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Sends as much of `bytes` as the socket takes now; all of it goes nowhere where nobody takes it.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.deaf) else { return bytes.len() };
        loop {
            return match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN | Errno::NOBUFS) => 0,
                Err(_) => {
                    self.deaf = true;
                    // Once all is received that came before, reading says so too.
                    if self.taken == self.filled
                        && let Err(error) = self.read()
                    {
                        self.hang_up(&error);
                    }
                    bytes.len()
                }
            };
        }
    }
}

/// A length that no frame has.
#[derive(Debug, thiserror::Error)]
#[error("the peer says that a frame has {0} bytes")]
struct TooLong(u32);

impl NetPeer for StreamPeer {
    fn is_up(&self) -> bool {
        self.socket.is_some()
    }

    fn send(&mut self, packet: &mut [u8]) -> bool {
        if !self.flush() {
            return false;
        }
        // The length takes the place of the header's last bytes, which say nothing here.
        let message = &mut packet[NET_HEADER - LENGTH..];
        let len = u32::try_from(message.len() - LENGTH).unwrap_or(u32::MAX);
        message[..LENGTH].copy_from_slice(&len.to_be_bytes());
        let sent = self.write(message);
        if sent != 0 {
            self.rest.extend(&message[sent..]);
        }
        sent != 0
    }

    fn flush(&mut self) -> bool {
        let mut rest = std::mem::take(&mut self.rest);
        let sent = if rest.is_empty() { 0 } else { self.write(&rest) };
        rest.drain(..sent);
        self.rest = rest;
        self.rest.is_empty()
    }

    fn receive(&mut self, packet: &mut [u8]) -> Option<usize> {
        if self.socket.is_none() {
            self.accept();
        }
        loop {
            match self.next_frame() {
                Ok(Some(frame)) => {
                    let len = NET_HEADER + frame.len();
                    packet[..NET_HEADER].fill(0);
                    packet[NET_HEADER..len].copy_from_slice(&self.input[frame]);
                    return Some(len);
                }
                Ok(None) => match self.read() {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        self.hang_up(&"the peer has closed it");
                        return None;
                    }
                    Err(error) => {
                        self.hang_up(&error);
                        return None;
                    }
                },
                Err(error) => {
                    self.hang_up(&error);
                    return None;
                }
            }
        }
    }

    fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().or(self.listener.as_ref()).map(|socket| socket.as_fd())
    }
}
